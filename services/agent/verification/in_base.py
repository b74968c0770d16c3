"""Finds the test command in what a run began from: the work that is to be verified does not choose its verifier."""

import asyncio
from pathlib import Path
from typing import Protocol

from services.agent.verification.detection import detect
from services.jobs.models import Hold


class Worktrees(Protocol):
    """What is needed of the vcs."""

    async def restore(self, hold: Hold, patch: bytes) -> None:
        """Put the worktree back to base and patch."""


async def detect_in_base(vcs: Worktrees, hold: Hold, worktree: Path, *, patch: bytes) -> str | None:
    """What ``detect`` says of the base alone, which is pinned: every attempt of a run finds the same.

    To be called before anything is written in this attempt. ``patch``: what earlier attempts made, and is in the
    worktree already, as it is afterwards. Raises ``VcsFailedError``, ``LeaseLostError``.
    """
    if not patch:
        return await asyncio.to_thread(detect, worktree)
    await vcs.restore(hold, b"")
    found = await asyncio.to_thread(detect, worktree)
    await vcs.restore(hold, patch)
    return found
