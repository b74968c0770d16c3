"""Work done once for many who want it: among the tasks of this process, and among processes by a lock on a file."""

import asyncio
import contextlib
import fcntl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Generic, TypeVar

from services.vcs.errors import BusyError
from services.vcs.git.runner import Progress

Result = TypeVar("Result")
_LOCK_POLL: Final = timedelta(milliseconds=20)


@dataclass(eq=False)
class _Flight(Generic[Result]):
    listeners: list[Progress] = field(default_factory=list)
    waiters: int = 0
    lasting: bool = False
    task: asyncio.Task[Result] | None = None

    def tell(self, phase: str, percent: int) -> None:
        for listener in self.listeners:
            listener(phase, percent)


class SharedWork(Generic[Result]):
    """Callers with the same key await one task; when the last of them goes away, the task is cancelled.

    Unless one of them asked that it last: then it goes on without callers, until ``close``.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[Result]] = {}

    async def run(
        self,
        key: Hashable,
        work: Callable[[Progress], Coroutine[None, None, Result]],
        progress: Progress | None = None,
        *,
        lasting: bool = False,
    ) -> Result:
        """Start ``work``, or join what another caller started; ``work`` gets one progress callback for all."""
        flight = self._flights.get(key)
        if flight is None or not self.is_under_way(key):
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(work(flight.tell))
            flight.task.add_done_callback(lambda _: self._forget(key, flight))
        assert flight.task is not None
        flight.waiters += 1
        flight.lasting |= lasting
        if progress is not None:
            flight.listeners.append(progress)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if progress is not None:
                flight.listeners.remove(progress)
            if flight.waiters == 0 and not flight.lasting and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()
                await asyncio.wait([flight.task])

    def is_under_way(self, key: Hashable) -> bool:
        # One that has ended is forgotten a moment later.
        flight = self._flights.get(key)
        return flight is not None and flight.task is not None and not flight.task.done()

    async def close(self) -> None:
        """Cancel what goes on, its callers included."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, key: Hashable, flight: _Flight[Result]) -> None:
        # Another flight may have begun under the key since this one was given up.
        if self._flights.get(key) is flight:
            del self._flights[key]
        task = flight.task
        if task is not None and task.done() and not task.cancelled():
            task.exception()  # seen: with no caller left there is nobody to raise it to


@contextlib.asynccontextmanager
async def file_lock(path: Path, *, timeout: timedelta, shared: bool = False) -> AsyncIterator[None]:
    """Hold a lock on ``path`` (made if absent): alone, or ``shared`` with others who hold it so.

    It holds against other tasks as against other processes. The kernel frees it with its holder, so it is never stale.
    Raises ``BusyError`` after ``timeout``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout.total_seconds()
    with path.open("ab") as file:
        while not _locked(file.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                words = f"another process held {path.name} for {timeout.total_seconds():g} s; see what fetches there"
                raise BusyError(words, retryable=True)
            await asyncio.sleep(_LOCK_POLL.total_seconds())
        yield


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
