"""The file `.env` of the folder where a command is started: what it says holds where the environment says nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pydantic_settings import BaseSettings, DotEnvSettingsSource

from quarterdeck.stack.errors import StackStartError

ENV_FILE: Final = ".env"


def take_env_file(folder: Path) -> list[str]:
    """Add what the file in ``folder`` says to the environment; which variables those are.

    Raises ``StackStartError`` where it cannot be read.
    """
    path = folder / ENV_FILE
    try:
        told = DotEnvSettingsSource(BaseSettings, env_file=path, case_sensitive=True).env_vars
    except (OSError, UnicodeDecodeError) as error:
        raise StackStartError(f"{path} cannot be read: {type(error).__name__}") from error
    taken = {name: value for name, value in told.items() if value and name not in os.environ}
    os.environ.update(taken)
    return sorted(taken)
