"""Removes worktrees that no attempt holds any more: their agent died, or the run went on elsewhere."""

from __future__ import annotations

from uuid import UUID

from services.jobs.running import Running
from services.runtime.telemetry import logger
from services.vcs.worktrees import Worktrees

log = logger("vcs.janitor")


class Janitor:
    def __init__(self, worktrees: Worktrees, running: Running) -> None:
        self._worktrees = worktrees
        self._running = running

    async def run_once(self) -> None:
        """Release every worktree whose attempt is over; raises ``StoreUnavailableError``.

        What was in one is in the run's checkpoint or changeset, or was never checkpointed and is not owed.
        """
        present = [(UUID(run_id), attempt) for run_id, attempt in self._worktrees.present()]
        held = await self._running.attempts_held([run_id for run_id, _ in present])
        for run_id, attempt in present:
            if held.get(run_id) != attempt:
                log.info("releasing a worktree that nobody holds", run=str(run_id), attempt=attempt)
                await self._worktrees.release(str(run_id), attempt)
