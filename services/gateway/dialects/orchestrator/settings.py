"""What the environment says of the Orchestrator API: the variables of its document, and where it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.gateway.credentials import is_plausible_key
from services.jobs.clients import OwnLimit, OwnLimits

PORT_VARIABLE = "QUARTERDECK_ORCHESTRATOR_PORT"
SECRET_VARIABLE = "AGENT_API_SECRET"  # noqa: S105  the name of the variable
DEFAULT_JOBS_AT_ONCE = 2
MOST_QUEUED = 10_000
"""The document has no limit; what nobody could ever work off is refused all the same."""


def _refuse_odd_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if text and not is_plausible_key(text):
        raise ValueError("must be 1 to 200 printable ASCII characters without spaces")
    return secret


def _refuse_odd_server(url: str) -> str:
    if not url.startswith(("https://", "http://")) or "@" in url:
        raise ValueError("must be a URL without credentials, as in https://github.com")
    return url.rstrip("/")


class OrchestratorSettings(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    secret: Annotated[SecretStr, AfterValidator(_refuse_odd_secret), Field(validation_alias=SECRET_VARIABLE)] = (
        SecretStr("")
    )
    """What requests bear; none: the API is not served."""
    max_concurrent_jobs: Annotated[int | None, Field(validation_alias="MAX_CONCURRENT_JOBS", ge=1, le=100_000)] = None
    """Jobs at once; none: 2, where no limit is set yet."""
    repos_dir: Annotated[Path | None, Field(validation_alias=AliasChoices("QUARTERDECK_VCS_ROOT", "REPOS_DIR"))] = None
    """The folder of the vcs, in which `mirrors` are; none: where a repository is cloned to is not told."""
    worktrees_dir: Annotated[Path | None, Field(validation_alias="WORKTREES_DIR")] = None
    """Not used: worktrees are in the vcs's folder, beside the mirrors that they share their objects with."""
    github_server_url: Annotated[
        str, AfterValidator(_refuse_odd_server), Field(validation_alias="GITHUB_SERVER_URL")
    ] = "https://github.com"
    """Where repositories are that are named by owner and name alone."""
    port: Annotated[int | None, Field(validation_alias=PORT_VARIABLE, ge=1, le=65_535)] = None
    """Where the API is served at the root; none: in `/orchestrator` of the gateway alone."""

    @property
    def limits(self) -> OwnLimits:
        told = self.max_concurrent_jobs
        slots = OwnLimit(DEFAULT_JOBS_AT_ONCE if told is None else told, is_told=told is not None)
        return OwnLimits(slots=slots, queued=OwnLimit(MOST_QUEUED))
