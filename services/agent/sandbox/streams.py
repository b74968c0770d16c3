"""Starts a child process whose output streams end when their last writer is gone, apart from the child's own exit.

asyncio's own pipes are not used for output: with them, waiting for a process waits for whoever holds its output too.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

_MESSAGE_BYTES = 4 * 1024**2
"""The longest line that ``readline`` gives: a message of an MCP server."""


class Output:
    """A pipe: ``writer`` is the descriptor for the child, and ``stream`` what comes of it."""

    def __init__(self, stream: asyncio.StreamReader, transport: asyncio.ReadTransport, writer: int) -> None:
        self.stream = stream
        self.writer = writer
        self._transport = transport

    @classmethod
    async def open(cls) -> Self:
        stream = asyncio.StreamReader(limit=_MESSAGE_BYTES)
        reader, writer = os.pipe()
        end = os.fdopen(reader, "rb", buffering=0)
        try:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), end)
        except BaseException:
            end.close()
            os.close(writer)
            raise
        return cls(stream, transport, writer)

    def started(self) -> None:
        """The child has its end: close ours of it, or the stream never ends."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        self.started()
        self._transport.close()


@dataclass(frozen=True, slots=True)
class Child:
    """``stderr``: None where it goes where ``stdout`` does."""

    process: asyncio.subprocess.Process
    stdout: Output
    stderr: Output | None

    def close(self) -> None:
        """Give its pipes up; what is still in them is lost."""
        if self.process.stdin is not None and not self.process.stdin.transport.is_closing():
            self.process.stdin.transport.abort()
        self.stdout.close()
        if self.stderr is not None:
            self.stderr.close()


async def spawn(
    argv: Sequence[str],
    *,
    streams: Literal["merged", "separate"],
    environment: Mapping[str, str],
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """``argv`` in a session of its own, its input a pipe. Raises ``OSError``."""
    stdout = await Output.open()
    stderr: Output | None = None
    try:
        stderr = await Output.open() if streams == "separate" else None
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout.writer,
            stderr=stderr.writer if stderr else stdout.writer,
            env=environment,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except BaseException:
        stdout.close()
        if stderr is not None:
            stderr.close()
        raise
    stdout.started()
    if stderr is not None:
        stderr.started()
    return Child(process, stdout, stderr)
