"""Which forge a repository's changes are shown on."""

from __future__ import annotations

from services.vcs.errors import ForgeRefusedError
from services.vcs.forges import Forge
from services.vcs.forges.github import GitHubForge
from services.vcs.forges.local import LocalForge
from services.vcs.git.repositories import Repository


class Forges:
    def __init__(self, local: LocalForge, github: GitHubForge | None = None) -> None:
        """``github``: None: no credentials for one are set, and changes are shown on the local forge."""
        self._local = local
        self._github = github

    def of(self, repository: Repository) -> Forge:
        if self._github is not None and self._github.is_here(repository):
            return self._github
        return self._local

    def named(self, name: str) -> Forge:
        """The forge that a changeset was published on. Raises ``ForgeRefusedError`` where it is not set up any more."""
        if name == self._local.name:
            return self._local
        if self._github is not None and name == self._github.name:
            return self._github
        raise ForgeRefusedError(f"the forge {name!r} is not set up here: give the vcs service its credentials again")

    def listing(self) -> Forge:
        """The forge whose repositories can be listed."""
        return self._github or self._local
