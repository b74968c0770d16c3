"""What a forge lists for the credentials of the vcs nodes: asked seldom, since a forge counts what it is asked."""

from __future__ import annotations

import asyncio
import time

from services.contracts.v1.vcs_pb2 import ListRepositoriesRequest
from services.gateway.problems import ProblemError
from services.gateway.vcs_client import VcsClient


class ForgeLook:
    """``known_seconds``: how long an answer is remembered; ``unknown_seconds``: that there was none."""

    def __init__(
        self,
        request: ListRepositoriesRequest,
        *,
        deadline_seconds: float,
        known_seconds: float,
        unknown_seconds: float,
    ) -> None:
        self._request = request
        self._deadline_seconds = deadline_seconds
        self._known_seconds = known_seconds
        self._unknown_seconds = unknown_seconds
        self._asking = asyncio.Lock()
        self._listed: int | None = None
        self._known_until = 0.0

    async def count(self, vcs: VcsClient) -> int | None:
        """How many repositories a vcs lists; None where none can."""
        async with self._asking:
            if time.monotonic() >= self._known_until:
                self._listed = await self._ask(vcs)
                lifetime = self._unknown_seconds if self._listed is None else self._known_seconds
                self._known_until = time.monotonic() + lifetime
            return self._listed

    async def _ask(self, vcs: VcsClient) -> int | None:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return len(await vcs.discover(self._request))
        except (ProblemError, TimeoutError):
            return None
