"""A stack that runs by itself: starts it, looks at it, stops it, from another process."""

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

import psutil

from quarterdeck.stack.concurrency import together
from quarterdeck.stack.errors import StackError, StackNotRunningError, StackStartError
from quarterdeck.stack.files import private_folder
from quarterdeck.stack.info import StackInfo, read_info
from quarterdeck.stack.lock import is_held, locked_error, read_holder
from quarterdeck.stack.options import DataFolder, StackOptions
from quarterdeck.stack.orphans import ProcessRecord, living, read_records
from quarterdeck.stack.probes import http_health

START_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.05
TAIL_LINES = 20
COMMAND = (sys.executable, "-m", "quarterdeck.stack")


@dataclass(frozen=True)
class ProcessStatus:
    """``problem``: None where it is healthy, else what is wrong in words."""

    name: str
    pid: int
    state: str
    restarts: int
    problem: str | None


@dataclass(frozen=True)
class StackStatus:
    """``info`` is None while the stack starts or stops, and where none runs."""

    running: bool
    info: StackInfo | None
    processes: list[ProcessStatus]

    @property
    def healthy(self) -> bool:
        return self.info is not None and all(process.problem is None for process in self.processes)


async def start_detached(options: StackOptions) -> StackInfo:
    """Start a stack in a session of its own and wait, up to 60 s, until all of it is healthy.

    Raises StackLockedError where one runs on the folder, and StackStartError, with the end of ``logs/stack.log`` and
    nothing left running, where it does not get there.
    """
    folder = DataFolder(options.data_dir)
    if is_held(folder.lock):
        raise locked_error(folder.lock)
    log = folder.log("stack")
    private_folder(log.parent)
    log_start = log.stat().st_size if log.exists() else 0
    pid = _spawn(options, log)
    deadline = time.monotonic() + START_SECONDS
    while (info := read_info(folder.info)) is None or info.pid != pid:
        if _has_ended(pid):
            raise StackStartError(f"the stack did not start:\n{_tail(log, log_start)}")
        if time.monotonic() > deadline:
            await _end(pid)
            raise StackStartError(f"the stack was not up within {START_SECONDS:g} s:\n{_tail(log, log_start)}")
        await asyncio.sleep(POLL_SECONDS)
    return info


async def read_status(data_dir: Path) -> StackStatus:
    """Whether a stack runs on the folder, and how each of its processes fares."""
    folder = DataFolder(data_dir)
    if not is_held(folder.lock):
        return StackStatus(running=False, info=None, processes=[])
    processes = await together(*(_status_of(record) for record in read_records(folder.processes)))
    return StackStatus(running=True, info=read_info(folder.info), processes=processes)


async def stop_detached(data_dir: Path, *, deadline_seconds: float = STOP_SECONDS) -> None:
    """Tell the stack of the folder to stop and wait until it has.

    Raises StackNotRunningError where there is none, StackError where it still runs at the deadline.
    """
    lock = DataFolder(data_dir).lock
    if not is_held(lock):
        raise StackNotRunningError(f"no stack runs on {data_dir}; start one with `quarterdeck up`")
    holder = read_holder(lock)
    process = holder.process() if holder else None
    if process is None:
        raise StackError(f"the stack on {data_dir} does not say who it is (it may just be starting); try again")
    process.send_signal(Signals.SIGTERM)
    try:
        await asyncio.to_thread(process.wait, deadline_seconds)
    except psutil.TimeoutExpired:
        raise StackError(
            f"the stack (pid {process.pid}) still runs after {deadline_seconds:g} s; "
            f"see {DataFolder(data_dir).log('stack')}, or end it with: kill -9 {process.pid}"
        ) from None


async def _status_of(record: ProcessRecord) -> ProcessStatus:
    problem = None
    if record.state != "running" or living(record) is None:
        problem = record.state if record.state != "running" else "ended"
    elif record.health_address is not None:
        problem = await http_health(record.health_address)()
    return ProcessStatus(record.name, record.pid, record.state, record.restarts, problem)


def _spawn(options: StackOptions, log: Path) -> int:
    """Start the supervisor and let go of it: neither our terminal nor our event loop may end it."""
    changes = options.variables()
    kept = {name: value for name, value in os.environ.items() if name not in changes}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        COMMAND[0],
        [*COMMAND, *options.arguments()],
        kept | {name: value for name, value in changes.items() if value is not None},
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )


def _has_ended(pid: int) -> bool:
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody else in this process waited for it
        return True
    return ended == pid


async def _end(pid: int) -> None:
    os.kill(pid, Signals.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while not _has_ended(pid):
        if time.monotonic() > deadline:
            os.kill(pid, Signals.SIGKILL)
        await asyncio.sleep(POLL_SECONDS)


def _tail(log: Path, start_bytes: int) -> str:
    lines = log.read_bytes()[start_bytes:].decode(errors="replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])
