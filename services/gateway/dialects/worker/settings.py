"""What the environment says of the Worker API: where it is served, to whom, and how many sessions it has at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from services.gateway.dialects.github_server import GitHubServerSettings
from services.gateway.dialects.settings import Count, Key, Port, limit_of
from services.jobs.clients import OwnLimit, OwnLimits

PORT_VARIABLE = "QUARTERDECK_WORKER_PORT"
KEY_VARIABLE = "QUARTERDECK_WORKER_API_KEY"
OPEN_VARIABLE = "QUARTERDECK_WORKER_NO_AUTH"
SESSIONS_VARIABLE = "QUARTERDECK_WORKER_MAX_SESSIONS"
DEFAULT_SESSIONS = 5
MOST_QUEUED = 1_000


class WorkerSettings(GitHubServerSettings):
    port: Annotated[Port | None, Field(validation_alias=PORT_VARIABLE)] = None
    """Where the API is served at the root; none: in `/worker` of the gateway alone."""
    api_key: Annotated[Key, Field(validation_alias=KEY_VARIABLE)] = SecretStr("")
    """What requests must bear; none: the API is served on loopback alone, unless it is said to be open."""
    no_auth: Annotated[bool, Field(validation_alias=OPEN_VARIABLE)] = False
    """Serve it without authentication, whatever the address."""
    max_sessions: Annotated[Count | None, Field(validation_alias=SESSIONS_VARIABLE)] = None
    """Sessions at once; none: 5, where no limit is set yet."""
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
        return OwnLimits(slots=limit_of(self.max_sessions, DEFAULT_SESSIONS), queued=OwnLimit(MOST_QUEUED))
