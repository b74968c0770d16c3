"""What the environment says of the Orchestrator API: the variables of its document, and where it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr

from services.gateway.dialects.github_server import GitHubServerSettings
from services.gateway.dialects.settings import Count, Key, Port, limit_of
from services.jobs.clients import OwnLimit, OwnLimits

PORT_VARIABLE = "QUARTERDECK_ORCHESTRATOR_PORT"
SECRET_VARIABLE = "AGENT_API_SECRET"  # noqa: S105  the name of the variable
DEFAULT_JOBS_AT_ONCE = 2
MOST_QUEUED = 10_000
"""The document has no limit; what nobody could ever work off is refused all the same."""


class OrchestratorSettings(GitHubServerSettings):
    secret: Annotated[Key, Field(validation_alias=SECRET_VARIABLE)] = SecretStr("")
    """What requests bear; none: the API is not served."""
    max_concurrent_jobs: Annotated[Count | None, Field(validation_alias="MAX_CONCURRENT_JOBS")] = None
    """Jobs at once; none: 2, where no limit is set yet."""
    repos_dir: Annotated[Path | None, Field(validation_alias=AliasChoices("QUARTERDECK_VCS_ROOT", "REPOS_DIR"))] = None
    """The folder of the vcs, for the log alone: a vcs tells itself where it cloned a repository to."""
    worktrees_dir: Annotated[Path | None, Field(validation_alias="WORKTREES_DIR")] = None
    """Not used: worktrees are in the vcs's folder, beside the mirrors that they share their objects with."""
    port: Annotated[Port | None, Field(validation_alias=PORT_VARIABLE)] = None
    """Where the API is served at the root; none: in `/orchestrator` of the gateway alone."""

    @property
    def limits(self) -> OwnLimits:
        slots = limit_of(self.max_concurrent_jobs, DEFAULT_JOBS_AT_ONCE)
        return OwnLimits(slots=slots, queued=OwnLimit(MOST_QUEUED))
