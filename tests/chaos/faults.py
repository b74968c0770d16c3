"""Injects the faults of a plan into a running stack, one after the other; what is frozen stays so beside the next."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

import psutil

from quarterdeck.stack.detached import read_status
from quarterdeck.stack.options import DataFolder
from quarterdeck.stack.orphans import ProcessRecord, living, read_records
from tests.acceptance.stacks import until
from tests.chaos.checks import Checks, Invariant
from tests.chaos.plan import Fault, FaultKind

BACK_SECONDS = 45
"""A process is there again, to be killed once more: back-off and start, on a machine that is busy."""
HEALTHY_SECONDS = 90
STOP_SECONDS = 30
"""An orderly stop drains first, and waits out what was frozen or killed beside it."""


class Injector:
    """``on_gateway_kill`` is called just before the gateway is killed: a request is then under way.
    ``diary``: a file that gets a line for each fault, with its time, to be laid beside the services' logs.
    """

    def __init__(self, data_dir: Path, checks: Checks, *, diary: Path, on_gateway_kill: Callable[[], None]) -> None:
        self.injected: Counter[tuple[str, FaultKind]] = Counter()
        self._diary = diary
        self._folder = DataFolder(data_dir)
        self._checks = checks
        self._on_gateway_kill = on_gateway_kill

    async def run(self, faults: Sequence[Fault]) -> None:
        """Inject them all, in order; returns once the last frozen process was let go."""
        async with asyncio.TaskGroup() as beside:
            for fault in faults:
                await asyncio.sleep(fault.pause_seconds)
                if await self._inject(fault, beside):
                    self.injected[fault.target, fault.kind] += 1
                    self._note(fault)

    def _note(self, fault: Fault) -> None:
        frozen = f" for {fault.freeze_seconds:.1f} s" if fault.freeze_seconds else ""
        with self._diary.open("a") as diary:
            diary.write(
                f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {fault.target}: {fault.kind}{frozen}\n"
            )

    async def until_healthy(self) -> None:
        """Wait until every process is; the last check of whether they come back."""

        async def healthy() -> bool:
            return (await read_status(self._folder.path)).healthy

        words = ""
        try:
            await until(healthy, seconds=HEALTHY_SECONDS)
        except TimeoutError:
            ill = [each for each in (await read_status(self._folder.path)).processes if each.problem]
            words = f"{HEALTHY_SECONDS} s after the last fault: " + "; ".join(f"{e.name}: {e.problem}" for e in ill)
        self._checks.check(Invariant.COMES_BACK, not words, words)

    async def _inject(self, fault: Fault, beside: asyncio.TaskGroup) -> bool:
        """Whether there was a process to do it to."""
        if fault.kind is FaultKind.KILL_ALL:
            return self._kill_all()
        found = await self._target(fault.target)
        if found is None:
            return False
        record, process = found
        match fault.kind:
            case FaultKind.KILL:
                await self._kill(fault.target, process)
            case FaultKind.WIPE:
                await self._wipe(process)
            case FaultKind.FREEZE:
                beside.create_task(_freeze(process, fault.freeze_seconds))
            case FaultKind.RESTART:
                process.send_signal(signal.Signals(record.stop_signal))
                beside.create_task(self._ends(record.name, process))
            case _:
                assert_never(fault.kind)
        return True

    async def _target(self, name: str) -> tuple[ProcessRecord, psutil.Process] | None:
        """The process of that name, waited for where it is being started again."""
        found: list[tuple[ProcessRecord, psutil.Process]] = []

        async def is_there() -> bool:
            records = [record for record in read_records(self._folder.processes) if record.name == name]
            found[:] = [(record, process) for record in records if (process := living(record))]
            return bool(found)

        with contextlib.suppress(TimeoutError):
            await until(is_there, seconds=BACK_SECONDS)
        self._checks.check(
            Invariant.COMES_BACK, bool(found), f"no {name} runs, {BACK_SECONDS} s after it was looked for"
        )
        return found[0] if found else None

    async def _kill(self, name: str, process: psutil.Process) -> None:
        if name == "gateway":
            self._on_gateway_kill()
            await asyncio.sleep(0)  # the request's task takes its first step
        _signal(process, signal.SIGKILL)

    def _kill_all(self) -> bool:
        """Every process, the offline model included, none before the others can notice."""
        found = [process for record in read_records(self._folder.processes) if (process := living(record))]
        self._on_gateway_kill()
        for process in found:
            _signal(process, signal.SIGKILL)
        return bool(found)

    async def _wipe(self, process: psutil.Process) -> None:
        """Stopped first, so that it can neither write nor be started again while its store is taken away."""
        _signal(process, signal.SIGSTOP)
        aside = self._folder.path / "nats-wiped"
        with contextlib.suppress(FileNotFoundError):  # killed before it had made one
            (self._folder.path / "nats").rename(aside)
        _signal(process, signal.SIGKILL)
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)

    async def _ends(self, name: str, process: psutil.Process) -> None:
        async def ended() -> bool:
            return not _runs(process)

        in_time = True
        try:
            await until(ended, seconds=STOP_SECONDS)
        except TimeoutError:
            in_time = False
        self._checks.check(Invariant.STOPS, in_time, f"{name} (pid {process.pid}) still runs {STOP_SECONDS} s later")


async def _freeze(process: psutil.Process, seconds: float) -> None:
    """Stop the process and all that it has started, as on a machine that hangs; let them go on, children first."""
    _signal(process, signal.SIGSTOP)
    with contextlib.suppress(psutil.Error):
        tree = [process, *process.children(recursive=True)]
        for child in tree[1:]:
            _signal(child, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for each in reversed(tree):
                _signal(each, signal.SIGCONT)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    """It may be gone already: another fault was quicker."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if process.is_running():
            os.kill(process.pid, number)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
