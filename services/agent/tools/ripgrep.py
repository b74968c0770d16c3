"""Runs ripgrep over the workspace: bounded in time, memory and output, and gone when its caller is."""

import asyncio
import functools
import os
import resource
import shutil
import signal
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from services.agent.tools.calls import ToolError

DEADLINE_SECONDS = 20.0
_REAP_SECONDS = 5.0
_CHUNK_BYTES = 64 * 1024
_MAX_STDOUT_BYTES = 8 * 1024 * 1024
_MAX_STDERR_BYTES = 4_096
# A pipe takes at least this much before anyone reads it.
_MAX_RULES_BYTES = 4_096
# A line of endless length, or an ignore file that is a link to /dev/zero, must not take the machine's memory.
_MAX_MEMORY_BYTES = 512 * 1024**2
_NO_MATCH = 1

# Only .gitignore files beneath the root count, with or without a repository; links are not followed; and no message
# about files, as it could carry the text of an ignore file that is a link out of the workspace.
_ALWAYS = (
    *("--no-config", "--no-messages", "--no-follow", "--hidden", "--iglob=!.git", "--no-require-git"),
    *("--no-ignore-parent", "--no-ignore-dot", "--no-ignore-global", "--no-ignore-exclude"),
    *("--threads=1", "--sort=path", "--no-mmap", "--color=never", "--null"),
)

Sink = Callable[[bytes], bool]
"""Takes output as it comes; says whether it wants more."""


@dataclass(frozen=True, slots=True)
class Ended:
    """``complete``: False where the sink, or the bound on output, stopped it early."""

    complete: bool
    stderr: str


async def ripgrep(
    arguments: Sequence[str],
    *,
    root: Path,
    sink: Sink,
    rules: Sequence[str] = (),
    file: int | None = None,
    include_ignored: bool = False,
) -> Ended:
    """Run ripgrep over all of ``root``, or over the open ``file`` alone, and feed what it prints to ``sink``.

    ``rules``: gitignore lines of lowest precedence that spare it work; too many are not used at all, so the sink must
    not rely on them. Raises ``ToolError``: it took longer than ``DEADLINE_SECONDS``, is not installed or did not start.
    """
    options = [*_ALWAYS, *(["--no-ignore-vcs"] if include_ignored else []), *arguments]
    with _as_pipe(rules) as pipe:
        if file is not None:
            command, stdin = [*options, "--", "-"], file
        elif pipe is not None:
            command, stdin = [*options, "--ignore-file=/dev/stdin", "--", "./"], pipe
        else:
            command, stdin = [*options, "--", "./"], asyncio.subprocess.DEVNULL
        process = await _start(command, root, stdin)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await _drain(process, sink)
    except TimeoutError as error:
        raise ToolError(
            f"The search took longer than {DEADLINE_SECONDS:.0f} s: narrow it with a path or a glob"
        ) from error
    finally:
        await _end(process)


@functools.cache
def _program() -> str:
    """Where ripgrep is: beside this interpreter, as its wheel puts it there, else on the search path."""
    found = shutil.which("rg", path=sysconfig.get_path("scripts")) or shutil.which("rg")
    if found is None:
        raise ToolError("Searching is not possible here: ripgrep is not installed; work with read_file instead")
    return found


async def _start(options: Sequence[str], root: Path, stdin: int | IO[bytes]) -> asyncio.subprocess.Process:
    try:
        process = await asyncio.create_subprocess_exec(
            *(_program(), *options),
            cwd=root,
            env={},
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a process group of its own, which uvloop cannot be asked for alone
        )
    except OSError as error:
        raise ToolError(f"The search could not start ({error.strerror}): try again later") from error
    if hasattr(resource, "prlimit"):
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    return process


async def _drain(process: asyncio.subprocess.Process, sink: Sink) -> Ended:
    assert process.stdout is not None
    assert process.stderr is not None
    taken = 0
    while chunk := await process.stdout.read(_CHUNK_BYTES):
        taken += len(chunk)
        if not sink(chunk) or taken > _MAX_STDOUT_BYTES:
            return Ended(complete=False, stderr="")
    try:
        stderr = await process.stderr.readexactly(_MAX_STDERR_BYTES)
    except asyncio.IncompleteReadError as error:
        stderr = error.partial
    if await process.wait() < 0:
        raise ToolError("The search took too much memory and was stopped: narrow it with a path or a glob")
    # With messages about files off, this is a complaint about the arguments.
    return Ended(complete=True, stderr=stderr.decode(errors="backslashreplace").strip())


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    # What is left in the pipes must be read: `wait` alone does not return while a full pipe is paused.
    # A killed process that stays in the kernel longer (a dead disk) is left to it: the run need not fail for that.
    with suppress(TimeoutError):
        async with asyncio.timeout(_REAP_SECONDS):
            await process.communicate()


@contextmanager
def _as_pipe(rules: Sequence[str]) -> Iterator[int | None]:
    text = "".join(f"{rule}\n" for rule in rules).encode()
    if not text or len(text) > _MAX_RULES_BYTES:
        yield None
        return
    reader, writer = os.pipe()
    try:
        os.write(writer, text)
        os.close(writer)
        yield reader
    finally:
        os.close(reader)
