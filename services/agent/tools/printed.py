"""Reads what ripgrep prints, as it comes, and keeps a bounded part of it that is safe to show."""

import re
from collections.abc import Callable

from services.agent.tools.showing import Clip, visible, visible_line
from services.agent.workspace import Parts, joined

_MAX_ENTRY_BYTES = 64 * 1024


class Names:
    """Takes NUL-ended names as ripgrep prints them and keeps the first ``limit`` of those that are wanted."""

    def __init__(self, wants: Callable[[Parts], bool], limit: int) -> None:
        self.kept: list[str] = []
        self.left_out = 0
        self._wants = wants
        self._limit = limit
        self._rest = b""

    def take(self, chunk: bytes) -> bool:
        *names, self._rest = (self._rest + chunk).split(b"\0")
        for name in names:
            path = _path(name)
            if not self._wants(path):
                continue
            if len(self.kept) < self._limit:
                self.kept.append(joined(path))
            else:
                self.left_out += 1
        return len(self._rest) <= _MAX_ENTRY_BYTES


class Matches:
    """Takes what ripgrep prints (``path NUL number :|- text``) and keeps ``limit`` matches, clipped.

    ``label``: the path to show where ripgrep read from a descriptor and knows none.
    """

    # Where binary data begins, ripgrep stops and prints a line that has no NUL; it would run into the next path.
    _ENTRY = re.compile(
        rb"(?:[^\0]*?: (?:WARNING: stopped searching binary file after match|binary file matches)"
        rb" \(found [^\n]*\)\n)?(?P<path>[^\0]+)\0(?P<number>\d+)(?P<mark>[:-])(?P<text>[^\n]*)\n"
    )

    def __init__(self, wants: Callable[[Parts], bool], limit: int, *, label: str | None = None) -> None:
        self.left_out = 0
        self._wants = wants
        self._limit = limit
        self._label = label
        self._clip = Clip()
        self._shown = 0
        self._rest = b""

    def take(self, chunk: bytes) -> bool:
        self._rest += chunk
        end = 0
        while entry := self._ENTRY.match(self._rest, end):
            end = entry.end()
            self._add(entry)
        self._rest = self._rest[end:]
        return len(self._rest) <= _MAX_ENTRY_BYTES

    def _add(self, entry: re.Match[bytes]) -> None:
        path = _path(entry["path"])
        if not self._wants(path):
            return
        is_match = entry["mark"] == b":"
        if is_match and self._shown == self._limit:
            self.left_out += 1
        # Once a match was left out, lines around further ones are too.
        if self.left_out:
            return
        self._shown += is_match
        self._clip.add(self._line(joined(path), entry))

    def _line(self, path: str, entry: re.Match[bytes]) -> str:
        mark = entry["mark"].decode()
        text = entry["text"].removesuffix(b"\r").decode(errors="backslashreplace")
        line = f"{visible_line(self._label or path)}{mark}{entry['number'].decode()}{mark}{visible(text)}"
        return f"\n{line}" if self._clip else line

    def text(self) -> str:
        binary = self._label is not None and b"binary file" in self._rest
        note = "[it is a binary file, which matches]" if binary else ""
        return "\n".join(piece for piece in (self._clip.text(), note) if piece)


def _path(name: bytes) -> Parts:
    # What is not UTF-8 becomes lone surrogates, which are shown spelled out and can be neither stored nor opened.
    return tuple(name.decode(errors="surrogateescape").removeprefix("./").split("/"))
