"""An attempt under way: its work, and what stops that from outside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from services.jobs.models import Checkpoint, ClaimedRun


class Stop(StrEnum):
    """Why an attempt is stopped from outside."""

    CANCELLED = "cancelled"
    LOST = "lost"
    INTERRUPTED = "interrupted"


class Work(Protocol):
    """What is done for one claimed run."""

    async def work(self) -> None:
        """Do it and record how it ended; when cancelled, record nothing."""

    def kill(self) -> None:
        """End its programs at once: the lease is lost, and the work may begin elsewhere soon."""

    def left(self) -> Checkpoint | None:
        """What is still to be stored of it, once ``work`` was cancelled, if the run is cancelled with that."""

    async def release(self) -> None:
        """Remove what it left on this node."""

    def hear(self) -> None:
        """The run's user said something."""


@dataclass
class Live:
    """One of this process, from when its work is made until all of it is concluded."""

    run: ClaimedRun
    work: Work
    stop: Stop | None = None
    task: asyncio.Task[Any] | None = None
    """Set while the work is done in it: what follows is not to be interrupted."""
    cancels: int = 0
    """How often ``end`` has cancelled it."""
    is_released: bool = False

    def end(self, why: Stop) -> None:
        """The first reason stands, but for a lost lease, which outdoes all."""
        if why is Stop.LOST:
            self.work.kill()
        if self.stop is None or why is Stop.LOST:
            self.stop = why
            if self.task is not None:
                self.cancels += 1
                self.task.cancel()

    async def came_to_its_end(self) -> bool:
        """Do the work, in the task that calls this: False where it was cut off."""
        if self.stop is not None:
            return False
        self.task = asyncio.current_task()
        assert self.task is not None
        task = self.task
        try:
            await self.work.work()
        except asyncio.CancelledError:
            if task.cancelling() > self.cancels:
                raise  # by somebody else: the process ends
            return False
        finally:
            self.task = None
            for _ in range(self.cancels):
                task.uncancel()
        return True

    async def release(self) -> None:
        """Remove what the work left on this node, unless that is done."""
        if not self.is_released:
            await self.work.release()
            self.is_released = True
