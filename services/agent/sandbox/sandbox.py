"""Where commands run: in bubblewrap, unconfined where the operator chose that, or not at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, Self

from services.agent.sandbox import cgroups
from services.agent.sandbox.bubblewrap import Bubblewrap, find_program
from services.agent.sandbox.command import Command
from services.agent.sandbox.errors import SandboxUnavailableError
from services.agent.sandbox.limits import Limits
from services.agent.sandbox.process import Process
from services.agent.sandbox.reading import Kept
from services.agent.sandbox.unconfined import Unconfined
from services.agent.tools.showing import shortened, visible_line

Kind = Literal["bubblewrap", "none", "unavailable"]

_PROBE_LIMITS = Limits(wall=timedelta(seconds=20))
# What a command left in its pipe when it ended is read at once; this bounds the wait for what outlived it unconfined.
_REST_SECONDS = 1.0
_INSTEAD = "commands are refused; set SANDBOX=none to run them unconfined"
_WHY_CHARACTERS = 500
_USUAL = Limits()
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})
_TOO_WIDE = {Path(path) for path in ("/", "/proc", "/sys", "/dev", "/etc", "/run", "/var", "/home", "/root", "/tmp")}  # noqa: S108


@dataclass(frozen=True, slots=True)
class Ended:
    """``exit_code``: 128 and the signal's number where a signal ended it. ``output``: at most 30,000 characters and a
    note, fit to be stored and shown. ``whole``: what it really printed, bounded too, where ``output`` leaves some out.
    """

    exit_code: int
    timed_out: bool
    output: str
    whole: bytes | None
    duration: timedelta


class _Launcher(Protocol):
    async def start(self, command: Command) -> Process: ...


class Sandbox:
    """``words``: which one it is, for an operator."""

    def __init__(self, kind: Kind, words: str, launcher: _Launcher | None) -> None:
        self.kind: Kind = kind
        self.words = words
        self._launcher = launcher
        self._lingering = 0
        self._running: set[Process] = set()
        self._is_over = False

    @classmethod
    async def find(cls, mode: Literal["auto", "none"], *, paths: Sequence[Path] = ()) -> Self:
        """The one to use here, tried once for real. ``paths``: folders that commands may read beside the system's.

        Raises ``ValueError``: a path that would show the whole machine.
        """
        if mode == "none":
            return cls("none", "none: commands run unconfined because SANDBOX=none is set", Unconfined())
        checked = _checked(paths)
        program = find_program()
        if program is None:
            return cls._unavailable("bubblewrap is not installed")
        groups = cgroups.find()
        sandbox = cls("bubblewrap", "", Bubblewrap(program, paths=checked, cgroups=groups))
        try:
            tried = await sandbox.run(["true"], worktree=None, limits=_PROBE_LIMITS)
            version = await _version(program)
        except (SandboxUnavailableError, OSError) as error:
            return cls._unavailable(str(error))
        if tried.exit_code != 0:
            return cls._unavailable(f"a trial command ended with {tried.exit_code}: {tried.output.strip()}")
        sandbox.words = f"{version}; {_memory_words(groups.controllers)}"
        return sandbox

    @classmethod
    def _unavailable(cls, why: str) -> Self:
        why = shortened(visible_line(why), _WHY_CHARACTERS)
        return cls("unavailable", f"unavailable: {why}; {_INSTEAD}", None)

    def for_one_attempt(self) -> "Sandbox":
        """The same, for programs of which ``is_quiet`` is to tell."""
        return Sandbox(self.kind, self.words, self._launcher)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing that was started by this object can still write anywhere.

        Nothing can that was in a namespace of processes which is gone, unless it had the network: over it, it can have
        handed an open file to a program of another attempt.
        """
        return self._lingering == 0

    def kill(self) -> None:
        """End all that was started by this object at once, without the time to put things in order, and start nothing
        more: whoever it worked for may be at work elsewhere soon.
        """
        self._is_over = True
        for process in self._running:
            process.kill()

    async def run(
        self,
        argv: Sequence[str],
        *,
        worktree: Path | None,
        limits: Limits = _USUAL,
        network: bool = False,
        environment: Mapping[str, str] = _NO_ENVIRONMENT,
    ) -> Ended:
        """Run ``argv`` to its end, in ``worktree``; nothing it started is left then, also when this is cancelled.

        Raises ``SandboxUnavailableError``.
        """
        began = time.monotonic()
        command = Command(argv, _resolved(worktree), limits, network, environment)
        process = await self._started(command)
        kept = Kept(limits.output_bytes)
        reading = asyncio.create_task(kept.read(process.stdout), name="output")
        try:
            exit_code, timed_out = await _ended(process, limits.wall)
        except SandboxUnavailableError as error:
            await _rest(reading)
            raise SandboxUnavailableError(kept.excerpt()[0].strip() or str(error)) from error
        finally:
            await self._end(process, command)
            await _rest(reading)
            process.close()
        text, is_all = kept.excerpt()
        duration = timedelta(seconds=time.monotonic() - began)
        return Ended(exit_code, timed_out, text, None if is_all else kept.content(), duration)

    @asynccontextmanager
    async def open(
        self,
        argv: Sequence[str],
        *,
        worktree: Path | None,
        limits: Limits = _USUAL,
        network: bool = False,
        environment: Mapping[str, str] = _NO_ENVIRONMENT,
        writes: bool = True,
    ) -> AsyncIterator[Process]:
        """A process with pipes; leaving the context ends it and all it started. ``limits.wall`` is not watched.

        ``writes``: whether it may change the worktree.

        Raises ``SandboxUnavailableError``.
        """
        command = Command(argv, _resolved(worktree), limits, network, environment, "separate", writes)
        process = await self._started(command)
        try:
            yield process
        finally:
            try:
                await self._end(process, command)
            finally:
                process.close()

    async def _started(self, command: Command) -> Process:
        if self._launcher is None:
            raise SandboxUnavailableError(f"Commands cannot be run here: the sandbox is {self.words}")
        if self._is_over:
            raise SandboxUnavailableError("Commands cannot be run any more: the run is not this agent's now")
        self._lingering += 1
        try:
            process = await self._launcher.start(command)
        except OSError as error:
            self._lingering -= 1
            raise SandboxUnavailableError(f"The command could not be started ({error}): try again later") from error
        self._take(process)
        return process

    def _take(self, process: Process) -> None:
        self._running.add(process)
        if self._is_over:  # since it was begun with
            process.kill()

    async def _end(self, process: Process, command: Command) -> None:
        try:
            await process.end()
        finally:
            self._running.discard(process)
        if process.is_gone and not command.network:
            self._lingering -= 1


async def _ended(process: Process, wall: timedelta) -> tuple[int, bool]:
    """Its exit code, and whether it had to be told to end."""
    try:
        async with asyncio.timeout(wall.total_seconds()):
            return await process.wait(), False
    except TimeoutError:
        await process.end()
        return await process.wait(), True


async def _rest(reading: asyncio.Task[None]) -> None:
    """Wait for the end of the output, but not for what holds it open without end."""
    await asyncio.wait([reading], timeout=_REST_SECONDS)
    reading.cancel()


async def _version(program: Path) -> str:
    """As it calls itself: a name and a number. Raises ``OSError``."""
    asking = await asyncio.create_subprocess_exec(
        program, "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asking.communicate()
    return said.decode(errors="replace").strip()


def _memory_words(controllers: frozenset[str]) -> str:
    missing = sorted({"memory": "memory", "pids": "processes"}[name] for name in {"memory", "pids"} - controllers)
    if not missing:
        return "memory and processes limited by cgroup"
    return f"{' and '.join(missing)} limited by resource limits alone, as no cgroup for it can be made"


def _checked(paths: Sequence[Path]) -> list[Path]:
    for path in paths:
        if path.resolve() in _TOO_WIDE:
            raise ValueError(f"SANDBOX_PATHS: {path} would show commands more than programs: name the folders of those")
    return [path for path in paths if path.exists()]


def _resolved(worktree: Path | None) -> Path | None:
    return worktree.resolve() if worktree else None
