"""A Git patch as the changes of single files, each without Git's own header lines. Pure; never fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from services.gateway.dialects.cody_batch.models import Change

_HEADER: Final = b"diff --git "
_HUNK: Final = b"@@"
_BINARY: Final = (b"GIT binary patch", b"Binary files ")
_LEFT_OUT: Final = (_HEADER, b"index ")
_ESCAPE: Final = re.compile(rb"\\(?:([0-7]{3})|(.))", re.DOTALL)
_ESCAPED: Final = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


def changes_of(patch: bytes) -> list[Change]:
    """In the patch's order. ``patch``: as `git diff` prints it; content in another encoding is shown as it can be."""
    return [_change(lines) for lines in _files(patch)]


def _files(patch: bytes) -> Iterator[list[bytes]]:
    """The lines of each file. A line of content begins with a space, `+`, `-` or a backslash: it is never a header."""
    lines: list[bytes] = []
    for line in patch.split(b"\n"):
        if line.startswith(_HEADER) and lines:
            yield lines
            lines = []
        if lines or line.startswith(_HEADER):
            lines.append(line)
    if lines:
        yield lines


def _change(lines: list[bytes]) -> Change:
    start = next((place for place, line in enumerate(lines) if line.startswith((_HUNK, *_BINARY))), len(lines))
    head, body = lines[:start], lines[start:]
    shown = [line for line in head if not line.startswith(_LEFT_OUT)]
    shown += [b"Binary file changed"] if body and body[0].startswith(_BINARY) else body
    return Change(file=_text(_path(head)), diff=_text(b"\n".join(shown)).rstrip("\n"))


def _path(head: list[bytes]) -> bytes:
    """What the file is called now; what it was called where it is gone."""
    for beginning, prefix in ((b"+++ ", b"b/"), (b"rename to ", b""), (b"copy to ", b""), (b"--- ", b"a/")):
        for line in head:
            name = _unquoted(line.removeprefix(beginning).removesuffix(b"\t"))
            if line.startswith(beginning) and name != b"/dev/null":
                return name.removeprefix(prefix)
    return _path_of_header(head[0].removeprefix(_HEADER))


def _path_of_header(names: bytes) -> bytes:
    """From `a/NAME b/NAME`, both the same: all that a change of mode or of a binary file tells."""
    if names.startswith(b'"'):
        return _unquoted(names[: len(names) // 2]).removeprefix(b"a/")
    return names[: len(names) // 2].removeprefix(b"a/")


def _unquoted(name: bytes) -> bytes:
    """A name as Git quotes it where it holds odd characters: as a string of C."""
    if len(name) < len(b'""') or not (name.startswith(b'"') and name.endswith(b'"')):
        return name
    return _ESCAPE.sub(_unescaped, name[1:-1])


def _unescaped(found: re.Match[bytes]) -> bytes:
    octal, character = found.groups()
    return bytes([int(octal, 8) & 0xFF]) if octal else _ESCAPED.get(character, character)


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
