"""Bytes to lines of text and back: encodings, line endings, and ranges of files too large to hold."""

import codecs
from dataclasses import dataclass
from typing import BinaryIO

from services.agent.workspace.errors import NotTextError

BYTE_ORDER_MARK = "\ufeff"
EXCERPT_BYTES = 256 * 1024
"""How much of a file one call returns at most."""
SCAN_BYTES = 64 * 1024 * 1024
"""How far into a large file a range may begin: about a tenth of a second of reading."""
_PIECE_BYTES = 64 * 1024
_LINE_BYTES = 8 * 1024
"""How much of one long line of a large file is kept."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    r"""Lines ``first``… of a file, without their line ends.

    ``total``: lines in the whole file, ``None`` where it was too large to count.
    ``line_end``: ``\r\n`` where every line ends so.
    """

    lines: list[str]
    first: int
    total: int | None
    line_end: str = "\n"
    byte_order_mark: bool = False


def decoded(content: bytes, path: str) -> str:
    """``content`` as text, its byte order mark kept. Raises ``NotTextError`` for binary files and other encodings."""
    if b"\0" in content:
        raise _binary(path, len(content))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise NotTextError(
            f"{path!r} ({len(content):,} bytes) is not UTF-8 text (byte {error.start} on): it cannot be shown or edited"
        ) from error


def is_crlf(text: str) -> bool:
    """Whether every line of ``text`` ends in CRLF (and there is one)."""
    return 0 < text.count("\n") == text.count("\r\n")


def lines_of(text: str, *, first: int, last: int | None) -> Excerpt:
    """Lines ``first`` to ``last`` (1-based, inclusive; ``None``: the end) of a whole file's ``text``."""
    line_end = "\r\n" if is_crlf(text) else "\n"
    marked = text.startswith(BYTE_ORDER_MARK)
    lines = text.removeprefix(BYTE_ORDER_MARK).split(line_end)
    if not lines[-1]:
        lines.pop()
    return Excerpt(lines[first - 1 : last], first, len(lines), line_end, marked)


def scan_lines(file: BinaryIO, path: str, *, size: int, first: int, last: int) -> Excerpt:
    """The same of a file too large to hold: reads no further than it must, keeps no more than ``EXCERPT_BYTES``.

    Raises ``NotTextError``: NUL or invalid UTF-8 in what was read, or ``first`` lies beyond ``SCAN_BYTES``.
    """
    lines: list[str] = []
    kept = 0
    for number in range(1, last + 1):
        line = _read_line(file, path, size)
        if line is None:
            return Excerpt(lines, first, number - 1)
        if number < first:
            _require_near(file, path, first)
            continue
        kept += len(line)
        if kept > EXCERPT_BYTES:
            break
        lines.append(_decoded_start(line, path))
    return Excerpt(lines, first, None)


def _read_line(file: BinaryIO, path: str, size: int) -> bytes | None:
    """The next line's first ``_LINE_BYTES`` without its end; ``None`` at the end of the file."""
    start = piece = file.readline(_PIECE_BYTES)
    if not piece:
        return None
    while piece and not piece.endswith(b"\n") and file.tell() < SCAN_BYTES:
        piece = file.readline(_PIECE_BYTES)
        if b"\0" in piece:
            break
    if b"\0" in start or b"\0" in piece:
        raise _binary(path, size)
    return start.removesuffix(b"\n").removesuffix(b"\r")[:_LINE_BYTES]


def _require_near(file: BinaryIO, path: str, first: int) -> None:
    if file.tell() >= SCAN_BYTES:
        raise NotTextError(
            f"line {first} of {path!r} lies beyond the first {SCAN_BYTES // 1024**2} MB, which is as far as ranges "
            "reach: find what you need with search_code"
        )


def _decoded_start(line: bytes, path: str) -> str:
    """Decode a line that may have been cut within a character."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(line)
    except UnicodeDecodeError as error:
        raise NotTextError(f"{path!r} is not UTF-8 text: it cannot be shown or edited") from error


def _binary(path: str, size: int) -> NotTextError:
    return NotTextError(f"{path!r} is a binary file of {size:,} bytes: it cannot be shown or edited")
