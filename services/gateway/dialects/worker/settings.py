"""What the environment says of the Worker API: where it is served, to whom, and how many sessions it has at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.gateway.credentials import is_plausible_key
from services.jobs.clients import OwnLimit, OwnLimits

PORT_VARIABLE = "QUARTERDECK_WORKER_PORT"
KEY_VARIABLE = "QUARTERDECK_WORKER_API_KEY"
OPEN_VARIABLE = "QUARTERDECK_WORKER_NO_AUTH"
SESSIONS_VARIABLE = "QUARTERDECK_WORKER_MAX_SESSIONS"
DEFAULT_SESSIONS = 5
MOST_QUEUED = 1_000


def _refuse_odd_key(key: SecretStr) -> SecretStr:
    if key.get_secret_value() and not is_plausible_key(key.get_secret_value()):
        raise ValueError("must be a key of 1 to 200 printable ASCII characters without spaces")
    return key


class WorkerSettings(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    port: Annotated[int | None, Field(validation_alias=PORT_VARIABLE, ge=1, le=65_535)] = None
    """Where the API is served at the root; none: in `/worker` of the gateway alone."""
    api_key: Annotated[SecretStr, AfterValidator(_refuse_odd_key), Field(validation_alias=KEY_VARIABLE)] = SecretStr("")
    """What requests must bear; none: the API is served on loopback alone, unless it is said to be open."""
    no_auth: Annotated[bool, Field(validation_alias=OPEN_VARIABLE)] = False
    """Serve it without authentication, whatever the address."""
    max_sessions: Annotated[int | None, Field(validation_alias=SESSIONS_VARIABLE, ge=1, le=100_000)] = None
    """Sessions at once; none: 5, where no limit is set yet."""
    github_server: Annotated[str, Field(validation_alias="GITHUB_SERVER_URL", min_length=1, max_length=2_000)] = (
        "https://github.com"
    )
    """Where the repositories are that are given by name alone."""

    vcs_root: Annotated[Path | None, Field(validation_alias="QUARTERDECK_VCS_ROOT")] = None
    """The folder of the vcs: where a session's files are told to be; none: their folder in it alone is told."""

    @property
    def worktrees(self) -> str:
        """The folder that the vcs has its worktrees in, with a slash at its end; empty: not known."""
        return f"{self.vcs_root / 'worktrees'}/" if self.vcs_root is not None else ""

    @property
    def most_sessions(self) -> int:
        return DEFAULT_SESSIONS if self.max_sessions is None else self.max_sessions

    @property
    def limits(self) -> OwnLimits:
        slots = OwnLimit(self.most_sessions, is_told=self.max_sessions is not None)
        return OwnLimits(slots=slots, queued=OwnLimit(MOST_QUEUED))
