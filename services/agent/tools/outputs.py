"""Long outputs of a run's tools, which the model reads by the path it was told; bounded each and all together."""

import re
from collections.abc import Iterator, Mapping

from services.agent.tools.calls import ToolError
from services.agent.tools.showing import shortened

OUTPUTS = "@outputs/"
"""What their paths begin with."""
MAX_OUTPUT_BYTES = 1024**2
MAX_RUN_BYTES = 20 * 1024**2
MAX_LINE_CHARACTERS = 2_000
"""What one line may have to be read as a whole; longer ones of an output are kept as several."""
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
    """``content`` with its long lines broken, as some programs and servers know no lines at all."""
    if not _has_long_line(content):
        return content
    lines = content.decode(errors="backslashreplace").split("\n")
    return "\n".join(piece for line in lines for piece in _pieces(line)).encode()


def _has_long_line(content: bytes) -> bool:
    start = 0
    while start + MAX_LINE_CHARACTERS < len(content):
        end = content.rfind(b"\n", start, start + MAX_LINE_CHARACTERS + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def _pieces(line: str) -> Iterator[str]:
    for start in range(0, max(1, len(line)), MAX_LINE_CHARACTERS):
        yield line[start : start + MAX_LINE_CHARACTERS]
