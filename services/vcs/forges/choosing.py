"""Which forge a repository's changes are shown on."""

from __future__ import annotations

from typing import Protocol

from services.vcs.errors import ForgeRefusedError
from services.vcs.forges import Forge
from services.vcs.forges.github import GitHubForge
from services.vcs.forges.local import LocalForge
from services.vcs.git.repositories import Repository


class GitHubNow(Protocol):
    @property
    def current(self) -> GitHubForge | None:
        """GitHub as it is to be asked now; None: no credentials are set, and changes are shown on the local forge.

        Raises ``ForgeUnavailableError`` where that is not known yet.
        """


class Forges:
    """Every method raises ``ForgeUnavailableError`` where it is not known yet as whom GitHub is asked."""

    def __init__(self, local: LocalForge, github: GitHubNow) -> None:
        self._local = local
        self._github = github

    def through(self, github: GitHubNow) -> Forges:
        """The same, where GitHub is asked as somebody else."""
        return Forges(self._local, github)

    def of(self, repository: Repository) -> Forge:
        github = self._github.current
        if github is not None and github.is_here(repository):
            return github
        return self._local

    def named(self, name: str) -> Forge:
        """The forge that a changeset was published on. Raises ``ForgeRefusedError`` where it is not set up any more."""
        if name == self._local.name:
            return self._local
        github = self._github.current
        if github is not None and name == github.name:
            return github
        raise ForgeRefusedError(f"the forge {name!r} is not set up here: give the vcs service its credentials again")

    def listing(self) -> Forge:
        """The forge whose repositories can be listed."""
        return self._github.current or self._local
