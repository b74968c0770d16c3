"""One process that was started, with everything it starts in turn: its streams, and how it is ended."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from services.agent.sandbox.streams import Child
from services.agent.tools.showing import visible

GRACE = timedelta(seconds=2)
"""From SIGTERM to SIGKILL."""
_REAP_SECONDS = 5.0
_WORDS_SECONDS = 1.0
_STDERR_BYTES = 64 * 1024
_CHUNK_BYTES = 16 * 1024


class Family(Protocol):
    """A process and all it started."""

    def terminate(self) -> None:
        """Ask the command to end."""
        ...

    def kill(self) -> None:
        """End all of them now. Does nothing where they are gone."""
        ...

    async def gone(self) -> bool:
        """Return once none of them is left, and what was made for them is removed; False: some may be hidden."""
        ...

    async def exit_code(self, returncode: int) -> int:
        """The command's own, from that of the process that we started. Raises ``SandboxUnavailableError``."""
        ...


class Process:
    """A child and its family; ``stdin`` and ``stdout`` are its own where its streams are separate."""

    def __init__(self, child: Child, family: Family) -> None:
        self._child = child
        self._process = child.process
        self._family = family
        self.is_gone = False
        """Whether it was ended, and surely all that it started with it."""
        self._is_killed = False
        self._stderr = bytearray()
        self._reading = asyncio.create_task(self._read(child.stderr.stream)) if child.stderr else None

    @property
    def stdin(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None, "spawn gives every child an input"
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        return self._child.stdout.stream

    def stderr(self) -> str:
        """At most its last 64 KB so far, control characters made visible."""
        return visible(self._stderr[-_STDERR_BYTES:].decode(errors="backslashreplace"))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(_CHUNK_BYTES):
            self._stderr += chunk
            if len(self._stderr) > 2 * _STDERR_BYTES:
                del self._stderr[:-_STDERR_BYTES]

    async def wait(self) -> int:
        """Its exit code; 128 and the signal's number where it was killed. Raises ``SandboxUnavailableError``."""
        return await self._family.exit_code(await self._process.wait())

    def kill(self) -> None:
        """End all of it now; ``end`` is still to be called, and returns once it is gone."""
        self._is_killed = True
        self._family.kill()

    async def end(self, grace: timedelta = GRACE) -> None:
        """End it with all it started: SIGTERM, after ``grace`` SIGKILL; at once when cancelled or killed meanwhile.

        What it printed can be read until ``close``.
        """
        try:
            # On a busy machine one that was killed may still be there, and would hear of it.
            if self._process.returncode is None and not self._is_killed:
                self._family.terminate()
                with suppress(TimeoutError):
                    async with asyncio.timeout(grace.total_seconds()):
                        await self._process.wait()
        finally:
            self._family.kill()
            # One that the kernel holds longer than this (a dead disk) is as good as dead.
            with suppress(TimeoutError):
                async with asyncio.timeout(_REAP_SECONDS):
                    await self._process.wait()
                    self.is_gone = await self._family.gone() or self.is_gone

    async def last_words(self) -> str:
        """What it said of itself, once it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_WORDS_SECONDS):
                if self._reading is None:
                    self._stderr += await self.stdout.read(_STDERR_BYTES)
                else:
                    await asyncio.shield(self._reading)
        return self.stderr().strip()

    def close(self) -> None:
        """Give its streams up."""
        if self._reading is not None:
            self._reading.cancel()
        self._child.close()
