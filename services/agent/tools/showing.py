"""Makes any text safe to store, to show in a terminal, and short enough to send."""

import re
from collections import deque

HEAD_CHARACTERS = 20_000
TAIL_CHARACTERS = 10_000
MAX_OUTPUT_CHARACTERS = HEAD_CHARACTERS + TAIL_CHARACTERS

# C0 but newline and tab, DEL, C1, and lone surrogates, which are in no valid Unicode text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# In one line also these: they would break it, or show its letters in another order than they stand.
_UNSAFE_IN_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """``text`` with control characters and lone surrogates spelled out; newlines and tabs stay."""
    return _UNSAFE.sub(_spelled, text)


def visible_line(text: str) -> str:
    """``text`` as one line: newlines, tabs and what changes the reading order are spelled out too."""
    return _UNSAFE_IN_LINE.sub(_spelled, text)


def shortened(text: str, characters: int) -> str:
    """``text``, its end cut off where it is longer than ``characters`` (the ellipsis included)."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _spelled(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004 - what two hex digits hold


class Clip:
    """Collects text and keeps its head and its tail, so that memory is bounded however much is added."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._head_room = HEAD_CHARACTERS
        self._tail: deque[str] = deque()
        self._tail_length = 0
        self._left_out = 0

    def add(self, text: str) -> None:
        head, rest = text[: self._head_room], text[self._head_room :]
        if head:
            self._head.append(head)
            self._head_room -= len(head)
        if rest:
            self._tail.append(rest)
            self._tail_length += len(rest)
            self._trim()

    def _trim(self) -> None:
        while (excess := self._tail_length - TAIL_CHARACTERS) > 0:
            first = self._tail.popleft()
            cut = min(excess, len(first))
            if cut < len(first):
                self._tail.appendleft(first[cut:])
            self._tail_length -= cut
            self._left_out += cut

    def __bool__(self) -> bool:
        """Whether anything was added."""
        return bool(self._head)

    def text(self) -> str:
        """All of it, or head and tail with a note of how much is missing between them."""
        note = f"\n[… {self._left_out:,} characters left out …]\n" if self._left_out else ""
        return "".join(self._head) + note + "".join(self._tail)


def clipped(text: str) -> str:
    """``text``, or its head and tail where it is too long for one result."""
    clip = Clip()
    clip.add(text)
    return clip.text()


def excerpt(text: str) -> str:
    """Head and tail of ``text``, which is too long for one result, safe to show; there may be very much of it."""
    # Cut before and after: spelling out may make it longer.
    head = visible(text[:HEAD_CHARACTERS])[:HEAD_CHARACTERS]
    tail = visible(text[-TAIL_CHARACTERS:])[-TAIL_CHARACTERS:]
    return f"{head}\n[… the middle of {len(text):,} characters left out …]\n{tail}"
