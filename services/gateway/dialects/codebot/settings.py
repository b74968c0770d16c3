"""What the environment says of the Codebot API: the variables of its document, and where it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.gateway.credentials import is_plausible_key
from services.gateway.dialects.settings import Count, DialectSettings, Port, limit_of
from services.jobs.clients import OwnLimits

PORT_VARIABLE = "QUARTERDECK_CODEBOT_PORT"
DEFAULT_WORKERS = 1
DEFAULT_QUEUE_SIZE = 100


def _refuse_odd_keys(keys: SecretStr) -> SecretStr:
    if not all(is_plausible_key(key) for key in _split(keys)):
        raise ValueError("must be keys of 1 to 200 printable ASCII characters without spaces, separated by commas")
    return keys


def _split(keys: SecretStr) -> list[str]:
    words = (key.strip() for key in keys.get_secret_value().split(","))
    return [word for word in words if word]


class CodebotSettings(DialectSettings):
    api_keys: Annotated[SecretStr, AfterValidator(_refuse_odd_keys), Field(validation_alias="CODEBOT_API_KEYS")] = (
        SecretStr("")
    )
    """Separated by commas; none: the API is not served."""
    max_workers: Annotated[Count | None, Field(validation_alias="CODEBOT_MAX_WORKERS")] = None
    """Tasks at once; none: 1, where no limit is set yet."""
    max_queue_size: Annotated[Count | None, Field(validation_alias="CODEBOT_MAX_QUEUE_SIZE")] = None
    """Tasks that may wait; none: 100, where no limit is set yet."""
    task_retention_seconds: Annotated[int, Field(validation_alias="CODEBOT_TASK_RETENTION", ge=1, le=3_153_600_000)] = (
        86_400
    )
    """How long a task is shown after its end."""
    work_dir: Annotated[Path | None, Field(validation_alias="CODEBOT_WORK_DIR")] = None
    """The folder that the vcs has its worktrees in; none: where a task worked is not told."""
    port: Annotated[Port | None, Field(validation_alias=PORT_VARIABLE)] = None
    """Where the API is served at the root; none: in `/codebot` of the gateway alone."""

    @property
    def keys(self) -> list[str]:
        return _split(self.api_keys)

    @property
    def limits(self) -> OwnLimits:
        return OwnLimits(
            slots=limit_of(self.max_workers, DEFAULT_WORKERS), queued=limit_of(self.max_queue_size, DEFAULT_QUEUE_SIZE)
        )
