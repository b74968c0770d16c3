"""Keeps a bounded part of what a command prints, however much that is, and makes text of it."""

import asyncio
import codecs

from services.agent.tools.showing import HEAD_CHARACTERS, MAX_OUTPUT_CHARACTERS, TAIL_CHARACTERS, visible

_CHUNK_BYTES = 64 * 1024
# What prints more than this is not in a hurry: from there on it waits for us, not every other run in this process.
_FLOOD_BYTES = 4 * 1024**2
_FLOOD_PAUSE_SECONDS = 0.002
# Room for the note that says how much is missing.
_NOTE_BYTES = 64
# No character takes more bytes than this in UTF-8.
_MAX_CHARACTER_BYTES = 4


class Kept:
    """The first three quarters and the last quarter of ``limit_bytes``; all of it while it fits."""

    def __init__(self, limit_bytes: int) -> None:
        self._tail_bytes = limit_bytes // 4
        self._head_bytes = max(0, limit_bytes - self._tail_bytes - _NOTE_BYTES)
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Take all that ``stream`` gives, to its end."""
        while chunk := await stream.read(_CHUNK_BYTES):
            self.add(chunk)
            if self._total > _FLOOD_BYTES:
                await asyncio.sleep(_FLOOD_PAUSE_SECONDS)

    def add(self, chunk: bytes) -> None:
        self._total += len(chunk)
        room = self._head_bytes - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:] if room < len(chunk) else b""
        # Trimmed seldom, as each trim moves what stays.
        if len(self._tail) > 2 * self._tail_bytes + _CHUNK_BYTES:
            del self._tail[: -self._tail_bytes]

    def content(self) -> bytes:
        """All of it, or head and tail with a note of how much is missing between them."""
        missing = self._total - self._head_bytes - self._tail_bytes
        if missing <= 0:
            return bytes(self._head + self._tail)
        note = f"\n[… {missing:,} bytes left out …]\n".encode()
        return bytes(self._head) + note + bytes(self._tail[-self._tail_bytes :])

    def excerpt(self) -> tuple[str, bool]:
        """At most ``MAX_OUTPUT_CHARACTERS`` and a note, control characters made visible; whether that is all of it."""
        content = self.content()
        if len(content) <= MAX_OUTPUT_CHARACTERS * _MAX_CHARACTER_BYTES:
            text = visible(content.decode(errors="backslashreplace"))
            if len(text) <= MAX_OUTPUT_CHARACTERS:
                return text, self._total == len(content)
        head = _head_of(content[: HEAD_CHARACTERS * _MAX_CHARACTER_BYTES])
        tail = _tail_of(content[-TAIL_CHARACTERS * _MAX_CHARACTER_BYTES :])
        return f"{head}\n[… the middle of {self._total:,} bytes left out …]\n{tail}", False


def _head_of(content: bytes) -> str:
    """The first characters of it; one that was cut in two is left out."""
    text = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode(content)
    return visible(text)[:HEAD_CHARACTERS]


def _tail_of(content: bytes) -> str:
    return visible(content.decode(errors="backslashreplace"))[-TAIL_CHARACTERS:]
