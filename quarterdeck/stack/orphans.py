"""Ends what an earlier stack left running when it was killed; never a process that is not provably its own."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import Signals
from typing import Self

import psutil

from quarterdeck.stack.files import write_private
from quarterdeck.stack.supervisor import Supervised

START_TOLERANCE_SECONDS = 2.0
"""psutil reckons start times from the boot time, which moves when the clock is set."""


@dataclass(frozen=True)
class ProcessRecord:
    """What ``processes.json`` keeps of one process. ``created``: seconds since the epoch."""

    name: str
    pid: int
    created: float
    command: list[str]
    state: str
    restarts: int
    stop_signal: int
    health_address: str | None = None

    @classmethod
    def of(cls, process: Supervised) -> Self:
        return cls(
            name=process.spec.name,
            pid=process.child.pid,
            created=process.child.create_time,
            command=list(process.spec.command),
            state=process.state,
            restarts=process.restarts,
            stop_signal=int(process.spec.stop[0][0]),
            health_address=process.spec.health_address,
        )


def write_records(path: Path, records: Iterable[ProcessRecord]) -> None:
    """Replace the record of what runs."""
    write_private(path, json.dumps([asdict(record) for record in records], indent=2) + "\n")


def read_records(path: Path) -> list[ProcessRecord]:
    """What was running when the record was last written; nothing where there is none or it is not ours."""
    try:
        return [ProcessRecord(**entry) for entry in json.loads(path.read_text())]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def living(record: ProcessRecord) -> psutil.Process | None:
    """The process of ``record`` if it still runs: same pid, start time and command line."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(record.pid)
        same_start = abs(process.create_time() - record.created) <= START_TOLERANCE_SECONDS
        # Before it became its command, the launcher's own words stood in front of it.
        same_command = process.cmdline()[-len(record.command) :] == record.command
        if same_start and same_command and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def find_processes(name: str, matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Every process of that program that ``matches``; one that may not be looked at is not ours."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == name and matches(process):
                found.append(process)
    return found


def end_processes(processes: list[tuple[psutil.Process, Signals]], *, seconds: float) -> None:
    """Send each its signal, and after ``seconds`` SIGKILL them and their process groups. Blocks for that long."""
    for process, signal in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal)
    _, overstaying = psutil.wait_procs([process for process, _ in processes], timeout=seconds)
    for process in overstaying:
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == process.pid and process.is_running():
                os.killpg(process.pid, Signals.SIGKILL)
            process.kill()
    psutil.wait_procs(overstaying, timeout=seconds)


def end_recorded(path: Path, *, seconds: float) -> list[str]:
    """End what the record of an earlier stack names and still runs; the names of what there was."""
    found = [(record, process) for record in read_records(path) if (process := living(record))]
    end_processes([(process, Signals(record.stop_signal)) for record, process in found], seconds=seconds)
    return [record.name for record, _ in found]
