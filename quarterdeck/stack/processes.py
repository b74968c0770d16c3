"""One child process: started with its log, awaited until ready, stopped by its own signals, its group included."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

import psutil

from quarterdeck.stack.errors import ProcessFailedError
from quarterdeck.stack.identity import KEEP, Identity, launch_command

LOG_ROTATE_BYTES = 10 * 1024 * 1024
TAIL_LINES = 20
TAIL_BYTES = 16 * 1024
POLL_SECONDS = 0.05
REAP_SECONDS = 5.0

Probe = Callable[[], Awaitable[str | None]]
"""Says in words what is not ready yet, or None. It bounds its own time and raises nothing."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """How to run one process. ``environment`` is all it gets.

    ``stop``: signals in order with the seconds each may take; SIGKILL to the group follows. The first of them is
    also what the kernel sends the process when we die. ``health_address`` is only kept on record.
    ``misconfigured_exit``: the exit code that says so; starting it again would change nothing.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    folder: Path
    probe: Probe | None = None
    ready_seconds: float = 30.0
    stop: tuple[tuple[Signals, float], ...] = ((Signals.SIGTERM, 2.0),)
    identity: Identity = KEEP
    health_address: str | None = None
    misconfigured_exit: int | None = None


class ChildProcess:
    """A started process, leader of a process group of its own. Made by ``spawn``."""

    def __init__(self, spec: ProcessSpec, process: asyncio.subprocess.Process, log_start_bytes: int) -> None:
        self.spec = spec
        self.pid = process.pid
        self.create_time = _create_time(process.pid)
        self._process = process
        self._log_start_bytes = log_start_bytes

    @classmethod
    async def spawn(cls, spec: ProcessSpec) -> "ChildProcess":
        """Start it. Call from the main thread: the kernel ties a child's life to the thread that forked it."""
        spec.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _rotate(spec.log)
        spec.log.touch(mode=0o600)
        with spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *launch_command(spec.command, identity=spec.identity, death_signal=spec.stop[0][0]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(spec.environment),
                cwd=spec.folder,
                process_group=0,
            )
            return cls(spec, process, log.tell())

    @property
    def exit_code(self) -> int | None:
        """None while it runs; below zero: ended by that signal."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it has ended."""
        return await self._process.wait()

    async def wait_ready(self) -> None:
        """Poll the probe until it is satisfied. Raises ProcessFailedError where the process ends or the time does."""
        deadline = time.monotonic() + self.spec.ready_seconds
        while True:
            missing = await self.spec.probe() if self.spec.probe is not None else None
            if self.exit_code is not None:
                raise self.failure(how_ended(self.exit_code))
            if missing is None:
                return
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready within {self.spec.ready_seconds:g} s ({missing})")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), POLL_SECONDS)

    def failure(self, what: str) -> ProcessFailedError:
        """An error about this process that carries its last log lines."""
        return ProcessFailedError(self.spec.name, what, self.log_tail(), self.exit_code)

    async def stop(self, *, at_once: bool = False) -> None:
        """End it by its signals in order, then SIGKILL; ``at_once`` leaves out the first. Its group goes with it."""
        for signal_, seconds in self.spec.stop[1 if at_once else 0 :]:
            self._send(signal_)
            if await self._ends_within(seconds):
                break
        self.kill_group()
        await self._ends_within(REAP_SECONDS)

    def kill_group(self) -> None:
        """SIGKILL to whatever is left of its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, Signals.SIGKILL)

    def log_tail(self) -> str:
        """The last lines that this process, not an earlier one, wrote to its log."""
        with self.spec.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(min(self._log_start_bytes, size), size - TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-TAIL_LINES:])

    def _send(self, signal_: Signals) -> None:
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal_)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return False
        return True


async def run_to_end(spec: ProcessSpec, *, seconds: float) -> None:
    """Run a command that ends by itself. Raises ProcessFailedError if it fails or takes longer than ``seconds``."""
    child = await ChildProcess.spawn(spec)
    try:
        code = await asyncio.wait_for(child.wait(), seconds)
    except TimeoutError:
        raise child.failure(f"did not end within {seconds:g} s") from None
    finally:
        await child.stop()
    if code != 0:
        raise child.failure(how_ended(code))


def how_ended(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = Signals(-code).name if -code in set(Signals) else f"signal {-code}"
    return f"was ended by {name}"


def _create_time(pid: int) -> float:
    """Seconds since the epoch; 0 for a process that is gone already."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_ROTATE_BYTES:
        log.replace(log.with_name(log.name + ".1"))
