"""What the settings of the published APIs have in common: where they are read from, keys, counts, ports and limits."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.gateway.credentials import is_plausible_key
from services.jobs.clients import OwnLimit


def _refuse_odd_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if text and not is_plausible_key(text):
        raise ValueError("must be 1 to 200 printable ASCII characters without spaces")
    return key


Key: TypeAlias = Annotated[SecretStr, AfterValidator(_refuse_odd_key)]
"""What requests must bear; an empty one is none."""
Count: TypeAlias = Annotated[int, Field(ge=1, le=100_000)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65_535)]


class DialectSettings(BaseSettings):
    """Read from the environment, where a variable that is empty was not set."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)


def limit_of(told: int | None, default: int) -> OwnLimit:
    """``told``: what a variable says; None: ``default`` where no limit is set yet."""
    return OwnLimit(default if told is None else told, is_told=told is not None)
