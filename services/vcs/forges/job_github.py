"""GitHub as whoever a job's token belongs to: one connection a token for all of its jobs, few of them kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from services.vcs.forges.github import GitHubAddress, GitHubConfig, GitHubForge
from services.vcs.forges.server_github import MakeGitHub

MOST_KEPT: Final = 32
SOURCE: Final = "credentials.githubToken of the job"


@dataclass
class Asked:
    """``current``: in use by ``users``, and never closed before they are done."""

    current: GitHubForge
    users: int = 0


class JobGitHub:
    """Tokens are told apart by their digests; which jobs have them is for the caller to know."""

    def __init__(self, address: GitHubAddress, make: MakeGitHub, *, most: int = MOST_KEPT) -> None:
        self._address = address
        self._make = make
        self._most = most
        self._kept: OrderedDict[str, Asked] = OrderedDict()

    def config(self, token: str) -> GitHubConfig:
        return self._address.with_token(token, source=SOURCE)

    @asynccontextmanager
    async def asked_with(self, token: str) -> AsyncIterator[Asked]:
        """Open for as long as the context is; who used it longest ago goes where there are too many."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        asked = self._kept.get(digest)
        if asked is None:
            asked = self._kept[digest] = Asked(self._make(self.config(token)))
        self._kept.move_to_end(digest)
        asked.users += 1
        try:
            yield asked
        finally:
            asked.users -= 1
            await self._close_what_is_over()

    @property
    def kept(self) -> int:
        return len(self._kept)

    async def aclose(self) -> None:
        """Once nothing is under way any more."""
        while self._kept:
            _, asked = self._kept.popitem()
            await asked.current.aclose()

    async def _close_what_is_over(self) -> None:
        idle = [digest for digest, asked in self._kept.items() if not asked.users]
        # Taken out all at once, before anybody else has a turn.
        over = [self._kept.pop(digest) for digest in idle[: max(0, len(self._kept) - self._most)]]
        for asked in over:
            await asked.current.aclose()
