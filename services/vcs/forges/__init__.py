"""Where a pushed branch becomes something to review. Each forge is a module of its own behind one protocol."""

from dataclasses import dataclass
from typing import Protocol

from services.vcs.repositories import Repository


@dataclass(frozen=True, slots=True)
class PublishedChange:
    """A branch that has been pushed, and what to say about it. ``base_branch``: what it is to be merged into."""

    changeset_id: str
    repository: Repository
    branch: str
    base_branch: str
    commit_sha: str
    title: str
    body: str
    draft: bool = False


class Forge(Protocol):
    async def open(self, change: PublishedChange) -> str:
        """The address of the change's page, found by its head branch before one is made: calling again is safe."""
