"""The vcs service's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from services.runtime.settings import Address, ServiceSettings


class VcsSettings(ServiceSettings):
    vcs_listen: Address = "127.0.0.1:8091"
    """Where the gRPC server listens; the agents of this node reach it here."""
    vcs_token: SecretStr
    """The bearer token that the agents give."""
    vcs_root: Path
    """Folder of mirrors and worktrees, on the volume that the node's agents share."""
    allow_local_repositories: bool = False
    """Whether a repository may be a path on this machine. Only where every client may read what this process can."""
    publications: Annotated[int, Field(ge=1, le=64)] = 4
    """Most publications at once."""
    node_name: str = "vcs"
