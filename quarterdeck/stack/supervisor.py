"""Keeps child processes running: starts again what died, with back-off, and stops all in order.

Knows nothing of what the processes are for.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from quarterdeck.stack.errors import ProcessFailedError
from quarterdeck.stack.processes import ChildProcess, ProcessSpec, how_ended

State = Literal["starting", "running", "waiting", "failed", "stopped"]


@dataclass
class Backoff:
    """Seconds until the next start: ``first``, doubled up to ``ceiling``, ``first`` again after a healthy while."""

    first: float = 0.5
    ceiling: float = 30.0
    reset_after: float = 60.0
    _next: float = field(default=0.0, init=False)

    def next_seconds(self, healthy_seconds: float) -> float:
        """How long to wait now, the process having been healthy for that long before it died."""
        again = healthy_seconds >= self.reset_after or self._next == 0
        delay = self.first if again else self._next
        self._next = min(delay * 2, self.ceiling)
        return delay


@dataclass(frozen=True)
class Notice:
    """A process ended by itself. ``restart_in_seconds`` is None where it will not be started again."""

    name: str
    what: str
    restart_in_seconds: float | None
    log_tail: str

    def __str__(self) -> str:
        if self.restart_in_seconds is None:
            return f"{self.name} {self.what}: wrong configuration, not started again.\n{self.log_tail}".rstrip()
        return f"{self.name} {self.what}; starting it again in {self.restart_in_seconds:g} s"


@dataclass
class Supervised:
    """A process under supervision and how it fares."""

    child: ChildProcess
    backoff: Backoff
    state: State = "starting"
    restarts: int = 0
    healthy_since: float = 0.0
    watch: asyncio.Task[None] | None = None

    @property
    def spec(self) -> ProcessSpec:
        return self.child.spec

    def became_healthy(self) -> None:
        self.state, self.healthy_since = "running", time.monotonic()

    def healthy_seconds(self) -> float:
        """How long it had been healthy; 0 where it never got there."""
        return time.monotonic() - self.healthy_since if self.state == "running" else 0.0


class Supervisor:
    """``on_notice`` hears of every death, ``on_change`` of every new process or state (it should be quick)."""

    def __init__(
        self,
        *,
        on_notice: Callable[[Notice], None],
        on_change: Callable[[], None] = lambda: None,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._on_notice = on_notice
        self._on_change = on_change
        self._backoff = backoff
        self._processes: dict[str, Supervised] = {}

    @property
    def processes(self) -> dict[str, Supervised]:
        """By name, in the order in which they were started."""
        return dict(self._processes)

    async def start(self, spec: ProcessSpec) -> ChildProcess:
        """Start a process, wait until it is ready, and keep it running from then on.

        Raises ProcessFailedError, with nothing left behind, where it does not get ready this first time.
        """
        entry = Supervised(await ChildProcess.spawn(spec), self._backoff())
        self._processes[spec.name] = entry
        self._on_change()
        try:
            await entry.child.wait_ready()
        except BaseException:
            await entry.child.stop(at_once=True)
            del self._processes[spec.name]
            raise
        entry.became_healthy()
        entry.watch = asyncio.create_task(self._keep_running(entry), name=f"watch {spec.name}")
        self._on_change()
        return entry.child

    async def stop(self, *names: str, at_once: bool = False) -> None:
        """Stop these processes side by side and forget the watch over them; unknown names do nothing."""
        entries = [self._processes[name] for name in names if name in self._processes]
        await asyncio.gather(*(self._stop(entry, at_once=at_once) for entry in entries))

    async def stop_all(self, *, at_once: bool = False) -> None:
        """Stop every process: the last started first, or with ``at_once`` all together and without grace."""
        names = list(reversed(self._processes))
        for stage in [names] if at_once else [[name] for name in names]:
            await self.stop(*stage, at_once=at_once)

    async def _stop(self, entry: Supervised, *, at_once: bool) -> None:
        if entry.watch is not None:
            entry.watch.cancel()
            await asyncio.wait([entry.watch])
        await entry.child.stop(at_once=at_once)
        self._set(entry, "stopped")

    async def _keep_running(self, entry: Supervised) -> None:
        while True:
            code = await entry.child.wait()
            entry.child.kill_group()
            if code == entry.spec.misconfigured_exit:
                self._set(entry, "failed")
                self._on_notice(Notice(entry.spec.name, how_ended(code), None, entry.child.log_tail()))
                return
            await self._pause(entry, how_ended(code))
            await self._start_again(entry)

    async def _pause(self, entry: Supervised, what: str) -> None:
        delay = entry.backoff.next_seconds(entry.healthy_seconds())
        self._set(entry, "waiting")
        self._on_notice(Notice(entry.spec.name, what, delay, entry.child.log_tail()))
        await asyncio.sleep(delay)

    async def _start_again(self, entry: Supervised) -> None:
        """One more start; where it does not get ready it is ended, and the caller sees it dead."""
        entry.restarts += 1
        while True:
            try:
                entry.child = await ChildProcess.spawn(entry.spec)
                break
            except OSError as error:  # no memory or descriptors for a new process now
                await self._pause(entry, f"could not be started ({error})")
        self._set(entry, "starting")
        try:
            await entry.child.wait_ready()
        except ProcessFailedError:
            await entry.child.stop(at_once=True)
            return
        entry.became_healthy()
        self._on_change()

    def _set(self, entry: Supervised, state: State) -> None:
        entry.state = state
        self._on_change()
