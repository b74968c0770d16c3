"""Runs one program to its end: own process group, deadline, bounded output. Knows nothing of Git, and no shell."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

GRACE: Final = timedelta(seconds=2)
STDERR_TAIL_BYTES: Final = 16 * 1024
_CHUNK_BYTES: Final = 256 * 1024
_LONGEST_LINE_BYTES: Final = 64 * 1024
# POSIX's unit of `ulimit -f`.
_ULIMIT_BLOCK_BYTES: Final = 512


class OutputLimitError(Exception):
    """The program wrote more than its caller takes; it was ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """``stderr``: the last 16 KiB of the lines that ``on_line`` did not consume."""

    exit_code: int
    stdout: bytes
    stderr: bytes


async def run_process(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    timeout: timedelta,
    stdin: bytes = b"",
    max_output_bytes: int,
    max_file_bytes: int | None = None,
    ends_at_file_limit: bool = True,
    descriptors: Sequence[int] = (),
    on_line: Callable[[bytes], bool] | None = None,
) -> Ended:
    """Run ``arguments`` in ``folder`` with exactly ``environment``.

    ``max_file_bytes``: the largest file that it, and whatever it starts, may write; who would write more is ended by
    SIGXFSZ, or (not ``ends_at_file_limit``) told "File too large". ``descriptors``: handed over under the same numbers.
    ``on_line`` sees each line of stderr (ended by CR or LF) and returns whether it consumed it. Raises
    ``TimeoutError``, ``OutputLimitError``, ``OSError`` (no such program or folder). Whenever it raises, cancellation
    included, the whole process group is gone: SIGTERM, and SIGKILL after ``GRACE``.
    """
    # A task of its own: a cancellation while it starts must not leave behind what nobody holds yet.
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *_limited(arguments, max_file_bytes, ends=ends_at_file_limit),
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
            pass_fds=descriptors,
            limit=_CHUNK_BYTES,
        )
    )
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            return await _follow(await asyncio.shield(starting), stdin, max_output_bytes, on_line)
    except BaseException:
        # A task of its own too: nor must a second cancellation.
        await asyncio.shield(asyncio.create_task(_end(starting)))
        raise


def _limited(arguments: Sequence[str], max_file_bytes: int | None, *, ends: bool) -> Sequence[str]:
    """The limit is in force before the program begins; set from outside, it would come after its first children.

    The shell's text is fixed: the program and its arguments are words that it hands on, never text that it reads.
    """
    if max_file_bytes is None:
        return arguments
    script = 'ulimit -f "$0" && exec "$@"' if ends else 'trap "" XFSZ && ulimit -f "$0" && exec "$@"'
    return ("/bin/sh", "-c", script, str(max(1, max_file_bytes // _ULIMIT_BLOCK_BYTES)), *arguments)


async def _follow(
    process: asyncio.subprocess.Process,
    stdin: bytes,
    max_output_bytes: int,
    on_line: Callable[[bytes], bool] | None,
) -> Ended:
    assert process.stdout is not None
    assert process.stderr is not None
    _, stdout, stderr = await asyncio.gather(
        _feed(process.stdin, stdin),
        _collect(process.stdout, max_output_bytes),
        _watch(process.stderr, on_line),
    )
    return Ended(await process.wait(), stdout, stderr)


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    if stream is None:
        return
    # A program that ends early says why by its exit code.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _collect(stream: asyncio.StreamReader, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await stream.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise OutputLimitError
        chunks.append(chunk)
    return b"".join(chunks)


async def _watch(stream: asyncio.StreamReader, on_line: Callable[[bytes], bool] | None) -> bytes:
    kept = rest = b""
    while chunk := await stream.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        rest = rest[-_LONGEST_LINE_BYTES:]
        for line in lines:
            if on_line is None or not on_line(line):
                kept = _tail(kept + line + b"\n")
    return _tail(kept + rest).strip()


def _tail(text: bytes) -> bytes:
    """The last lines. Whole ones: what is to be hidden in them could not be found by its half."""
    if len(text) <= STDERR_TAIL_BYTES:
        return text
    tail = text[-STDERR_TAIL_BYTES:]
    return tail.partition(b"\n")[2] or tail


async def _end(starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
    """The whole group, once it has started; nothing where it could not."""
    try:
        process = await starting
    except OSError:
        return
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE.total_seconds())
    # The leader may be gone while what it started is not.
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
