"""Fragments of a reply on their way to watchers: joined while they wait, taken as what one message holds. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from services.agent.model import Fragment
from services.contracts.text import storable

MOST_CHARACTERS = 80_000
"""Of one message: JSON makes six bytes of a character at most, and a message is to stay below 512 KiB."""
_PIECE_CHARACTERS = 16
"""What a piece takes beside its text."""


@dataclass
class _Piece:
    """What one block of a reply said in a row."""

    turn: int
    type: str
    block: int
    texts: list[str]

    def continues_with(self, turn: int, fragment: Fragment) -> bool:
        return (self.turn, self.type, self.block) == (turn, fragment.type, fragment.block)


class Fragments:
    """What was not told yet, in its order."""

    def __init__(self) -> None:
        self._pieces: deque[_Piece] = deque()

    @property
    def turn(self) -> int | None:
        """That of what comes next; None: nothing waits."""
        return self._pieces[0].turn if self._pieces else None

    def add(self, turn: int, fragment: Fragment) -> None:
        if self._pieces and self._pieces[-1].continues_with(turn, fragment):
            self._pieces[-1].texts.append(fragment.text)
        else:
            self._pieces.append(_Piece(turn, fragment.type, fragment.block, [fragment.text]))

    def clear(self) -> None:
        self._pieces.clear()

    def take(self, *, is_end: bool) -> dict[str, Any] | None:
        """The payload of the next `delta`: of one turn, as much as a message holds. None: there is nothing to tell.

        ``is_end``: the rest of a character that was cut does not come any more.
        """
        turn, room = self.turn, MOST_CHARACTERS
        told: list[dict[str, Any]] = []
        while self._pieces and self._pieces[0].turn == turn and room > 0:
            piece = self._pieces.popleft()
            text, rest = self._cut(piece, room, is_end=is_end)
            if text:
                told.append({"type": piece.type, "text": text, "block": piece.block})
            room -= len(text) + _PIECE_CHARACTERS
            if rest:
                self._pieces.appendleft(_Piece(piece.turn, piece.type, piece.block, [rest]))
                break
        if not told:
            return None
        first, *more = told
        return {"turn": turn, **first} | ({"more": more} if more else {})

    def _cut(self, piece: _Piece, room: int, *, is_end: bool) -> tuple[str, str]:
        """What goes now, and what later."""
        text, half = "".join(piece.texts), ""
        if not is_end and not self._pieces and "\ud800" <= text[-1:] <= "\udbff":
            text, half = text[:-1], text[-1]
        text = storable(_paired(text))
        return text[:room], text[room:] + half


def _paired(text: str) -> str:
    """A character may come as two surrogates, each in a fragment of its own."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
