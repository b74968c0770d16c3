"""How far a watcher has come: the `id` of every message, and what `Last-Event-ID` brings back."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_FORM = re.compile(r"(?P<number>\d{1,18}):(?P<incarnation>[0-9a-z]{1,32}|-):(?P<sequence>\d{1,18})", re.ASCII)

NOWHERE = "-"
"""In place of an incarnation: the place in the stream of NATS is not known."""


class BadPositionError(ValueError):
    """Not an id that this stream of events gave out; connect without one to begin anew."""

    def __init__(self) -> None:
        super().__init__(str(self.__doc__))


@dataclass(frozen=True, slots=True)
class Position:
    """All durable events up to ``number`` were sent, and all of the stream's ``incarnation`` up to ``sequence``.

    ``number``: of the job's events; where all of a client's jobs are watched: the place over all jobs.
    """

    number: int = 0
    incarnation: str = NOWHERE
    sequence: int = 0

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises ``BadPositionError``."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise BadPositionError
        return cls(int(match["number"]), match["incarnation"], int(match["sequence"]))

    def __str__(self) -> str:
        return f"{self.number}:{self.incarnation}:{self.sequence}"

    def at_number(self, number: int) -> Position:
        return replace(self, number=number)

    def in_stream(self, incarnation: str, sequence: int) -> Position:
        return replace(self, incarnation=incarnation, sequence=sequence)

    def out_of_stream(self) -> Position:
        return Position(self.number)

    def has_passed(self, incarnation: str, sequence: int) -> bool:
        return incarnation == self.incarnation and sequence <= self.sequence
