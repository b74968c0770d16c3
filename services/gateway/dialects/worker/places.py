"""How far a session's client has come: the `id` of every frame, and what `Last-Event-ID` brings back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.gateway.events.position import BadPositionError, Position

_TURN = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place(Position):
    """``turn``: the last one that the client was told has begun."""

    turn: int = 0

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises ``BadPositionError``."""
        head, _, turn = text.rpartition(":")
        if not _TURN.fullmatch(turn):
            raise BadPositionError
        position = Position.parse(head)
        return cls(position.number, position.incarnation, position.sequence, int(turn))

    def __str__(self) -> str:
        return f"{self.number}:{self.incarnation}:{self.sequence}:{self.turn}"
