"""Long outputs of a run's tools, which the model reads by the path it was told; bounded each and all together."""

import re
from collections.abc import Mapping

from services.agent.tools.calls import ToolError
from services.agent.tools.showing import shortened

OUTPUTS = "@outputs/"
"""What their paths begin with."""
MAX_OUTPUT_BYTES = 1024**2
MAX_RUN_BYTES = 20 * 1024**2
MAX_LINE_CHARACTERS = 2_000
"""What one line may have to be read as a whole; longer ones of an output are kept as several."""
_SHORT_LINE_BYTES = MAX_LINE_CHARACTERS // 4
"""Never more characters than that: a byte that is no text is shown as four."""
_NAME = re.compile(r"([1-9][0-9]{0,8})\.txt")
_SHOWN_CHARACTERS = 60
_CUT = "\n[… {:,} bytes left out …]\n"
_NOTE_BYTES = 64


class Outputs:
    """``kept``: by name, what a checkpoint holds. Where all together are too much, the oldest are dropped."""

    def __init__(self, kept: Mapping[str, bytes] = {}) -> None:
        numbered = {_number(name): content for name, content in kept.items()}
        self._contents = dict(sorted(numbered.items()))
        self._last = max(self._contents, default=0)
        self._new: list[int] = []
        self._trim()

    def keep(self, content: bytes) -> str:
        """The path by which the model can read ``content``, of which a middle over 1 MiB is left out."""
        self._last += 1
        self._contents[self._last] = _bounded(_in_lines(content))
        self._new.append(self._last)
        self._trim()
        return f"{OUTPUTS}{self._last}.txt"

    def kept(self, content: bytes) -> str:
        """Keep ``content``, which was too long for a result; what the result says of it."""
        path = self.keep(content)
        return f"[The output was too long to show: read it with read_file, path {path}, by ranges of lines.]"

    def _trim(self) -> None:
        total = sum(map(len, self._contents.values()))
        while total > MAX_RUN_BYTES:
            oldest = next(iter(self._contents))
            total -= len(self._contents.pop(oldest))

    def read(self, path: str) -> bytes:
        """Raises ``ToolError``: there is none of that name, or none any more."""
        match = _NAME.fullmatch(path.removeprefix(OUTPUTS))
        number = int(match[1]) if match else 0
        if number in self._contents:
            return self._contents[number]
        shown = shortened(path, _SHOWN_CHARACTERS)
        if 1 <= number <= self._last:
            raise ToolError(
                f"{shown!r} was dropped: a run keeps its newest {MAX_RUN_BYTES // 1024**2} MB of output. Make the "
                "call again, so that it gives less"
            )
        readable = ", ".join(f"{OUTPUTS}{each}.txt" for each in list(self._contents)[-5:])
        raise ToolError(f"There is no output {shown!r}: {f'the newest are {readable}' if readable else 'none is kept'}")

    def take_new(self) -> dict[str, bytes]:
        """By name, what was added since this was last asked; it may have been dropped since."""
        new, self._new = self._new, []
        return {f"{number}.txt": self._contents[number] for number in new if number in self._contents}


def _number(name: str) -> int:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no name of a kept output")
    return int(match[1])


def _bounded(content: bytes) -> bytes:
    if len(content) <= MAX_OUTPUT_BYTES:
        return content
    tail = MAX_OUTPUT_BYTES // 4
    head = MAX_OUTPUT_BYTES - tail - _NOTE_BYTES
    return content[:head] + _CUT.format(len(content) - head - tail).encode() + content[-tail:]


def _in_lines(content: bytes) -> bytes:
    """``content`` with its long lines broken, as some programs and servers know no lines at all.

    Short lines are passed over many at once: there may be millions of them, and every run of the process waits.
    """
    parts, taken, start = [], 0, 0
    while start + _SHORT_LINE_BYTES < len(content):
        end = content.rfind(b"\n", start, start + _SHORT_LINE_BYTES + 1)
        if end < 0:
            end = content.find(b"\n", start)
            end = end if end >= 0 else len(content)
            parts += [content[taken:start], _broken(content[start:end])]
            taken = end
        start = end + 1
    return b"".join([*parts, content[taken:]])


def _broken(line: bytes) -> bytes:
    try:
        text, most = line.decode(), MAX_LINE_CHARACTERS
    except UnicodeDecodeError:
        text, most = line.decode(errors="surrogateescape"), _SHORT_LINE_BYTES
    pieces = (text[start : start + most] for start in range(0, len(text), most))
    return "\n".join(pieces).encode(errors="surrogateescape")
