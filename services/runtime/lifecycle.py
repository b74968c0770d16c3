"""How a process lives: signals, supervised background loops, doorbells. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import uvloop

from services.runtime.telemetry import logger

log = logger("lifecycle")

_NEW_OBJECTS = 30_000
"""Of those that are still there, until garbage is looked for among them."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *, starts_many_processes: bool = False) -> None:
    """Run ``main``; the event it gets is set by SIGTERM or SIGINT.

    On uvloop, but for a service that ``starts_many_processes``: to run a search took 7 ms there, most of them blocked,
    and 1.8 ms on the standard library's loop, which does not copy the page tables of a large process.
    """

    async def supervised() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    look_for_garbage_less_often()
    if starts_many_processes:
        _wait_for_children_without_threads()
    (asyncio.run if starts_many_processes else uvloop.run)(supervised())


def look_for_garbage_less_often() -> None:
    """What was imported stays: it need not be gone through again and again. Hardly anything here goes in circles, and
    to look for that after every 700 new objects, as Python does, took up to a tenth of a busy process's time.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


def _wait_for_children_without_threads() -> None:
    """As newer Pythons do where the kernel can: 3.11 starts a thread for each child, which takes 2 ms."""
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())


class Doorbell:
    """A wake-up that coalesces: any number of rings before the next look are one look."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, timeout: timedelta) -> bool:
        """Return whether it rang within ``timeout``; clears it."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


@dataclass
class Capacity:
    """How many pieces of work may be under way at once."""

    total: int
    busy: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def free(self) -> int:
        """How many places are free; waits for one."""
        while self.busy >= self.total:
            self._changed.clear()
            await self._changed.wait()
        return self.total - self.busy

    def take(self, places: int = 1) -> None:
        self.busy += places

    def give_back(self, places: int = 1) -> None:
        self.busy -= places
        self._changed.set()


async def repeat(
    name: str,
    step: Callable[[], Awaitable[object]],
    *,
    wait: Callable[[], Awaitable[object]],
    transient: tuple[type[BaseException], ...],
    pause: timedelta = timedelta(seconds=0.5),
) -> None:
    """Run ``step`` for ever, with ``wait`` between; a ``transient`` error is logged and tried again after ``pause``.

    Any other error is a bug and propagates, which ends the process: its supervisor starts a clean one.
    """
    failing = False
    while True:
        try:
            await step()
            if failing:
                log.info("recovered", loop=name)
            failing = False
        except transient as error:
            if not failing:
                log.warning("failing, will be tried again", loop=name, error=str(error) or type(error).__name__)
            failing = True
            await asyncio.sleep(pause.total_seconds())
            continue
        await wait()


async def stop_tasks(tasks: list[asyncio.Task[Any]], *, timeout: timedelta) -> None:
    """Cancel ``tasks`` and wait for them; what overstays is named in the log and left behind."""
    for task in tasks:
        task.cancel()
    if not tasks:
        return
    _, pending = await asyncio.wait(tasks, timeout=timeout.total_seconds())
    for task in pending:
        log.error("task did not stop", task=task.get_name())


async def until_stopped(stop: asyncio.Event, tasks: list[asyncio.Task[Any]]) -> None:
    """Return when ``stop`` is set; raise the error of the first of ``tasks`` that ends before."""
    stopping = asyncio.create_task(stop.wait(), name="stop signal")
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
            raise RuntimeError(f"background task {task.get_name()} ended on its own")
    finally:
        stopping.cancel()
        with suppress(asyncio.CancelledError):
            await stopping
