"""Answers that GitHub gave, each with its ETag: asked with that, an unchanged answer costs nothing of the rate limit.
Nothing is ever taken from here without asking.
"""

import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Self

MOST_BYTES: Final = 16 * 1024 * 1024
"""Of all that is kept. A pull request of 25 KB takes about 3."""
_FAST: Final = 1


@dataclass(frozen=True, slots=True)
class Known:
    """``is_last``: no page follows."""

    etag: str
    is_last: bool
    _packed: bytes = field(repr=False)

    @classmethod
    def of(cls, etag: str, content: bytes, *, is_last: bool) -> Self:
        return cls(etag, is_last, zlib.compress(content, _FAST))

    @property
    def content(self) -> bytes:
        return zlib.decompress(self._packed)

    @property
    def size_bytes(self) -> int:
        return len(self._packed)


class KnownAnswers:
    """The ones that were used last."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._size_bytes = 0
        self._known: OrderedDict[str, Known] = OrderedDict()

    def get(self, key: str) -> Known | None:
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def put(self, key: str, known: Known) -> None:
        if (replaced := self._known.pop(key, None)) is not None:
            self._size_bytes -= replaced.size_bytes
        self._known[key] = known
        self._size_bytes += known.size_bytes
        while self._size_bytes > self._most_bytes:
            _, dropped = self._known.popitem(last=False)
            self._size_bytes -= dropped.size_bytes
