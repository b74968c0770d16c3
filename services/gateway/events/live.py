"""Events on their way to watchers, and the messages made of them: encoded once for all who are equally far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from services.contracts.subjects import CLIENT_HEADER, SEQUENCE_HEADER
from services.gateway.events.position import NOWHERE, Position
from services.jobs.eventlog import LoggedEvent
from services.runtime.jetstream import Tailed
from services.runtime.telemetry import logger

log = logger("gateway.events")


@dataclass(slots=True)
class Frame:
    """One message to a watcher. ``data``: one line of JSON."""

    position: Position
    kind: str
    data: bytes
    _encoded: bytes = field(default=b"", compare=False, repr=False)
    _chunk: bytes = field(default=b"", compare=False, repr=False)

    def encoded(self) -> bytes:
        """As server-sent events have it."""
        if not self._encoded:
            head = b"id: %b\nevent: %b\ndata: " % (str(self.position).encode(), self.kind.encode())
            self._encoded = head + self.data + b"\n\n"
        return self._encoded

    def chunk(self) -> bytes:
        """The same as one chunk of an HTTP/1.1 answer (RFC 9112, 7.1)."""
        if not self._chunk:
            self._chunk = chunked(self.encoded())
        return self._chunk


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(slots=True)
class LiveEvent:
    """An event for all who watch it. ``number``: 0 for a delta. ``data``: one line of JSON; empty: nothing to send.

    ``order``: a durable event's place over all jobs; 0: it has none. All that there is with an order in
    (``heard_from``, ``heard_to``] was given to its watchers with this event or before it.
    """

    number: int
    kind: str
    data: bytes
    incarnation: str
    sequence: int
    order: int = 0
    heard_from: int = 0
    heard_to: int = 0
    _frame: Frame | None = field(default=None, compare=False, repr=False)

    def frame(self, number: int) -> Frame:
        """The message of a watcher that comes to ``number`` with it: one object for all of them."""
        if self._frame is None or self._frame.position.number != number:
            self._frame = Frame(Position(number, self.incarnation, self.sequence), self.kind, self.data)
        return self._frame


def live_event(message: Tailed) -> LiveEvent | None:
    """None where the message is no event."""
    try:
        body = orjson.loads(message.data)
        number, kind = int(body.get("number", 0)), str(body["kind"])
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("not an event", subject=message.subject, sequence=message.sequence)
        return None
    # A publisher of another make may spread its JSON over lines, which a message of SSE cannot hold.
    data = orjson.dumps(body) if b"\n" in message.data or b"\r" in message.data else message.data
    return LiveEvent(number, kind, data, message.incarnation, message.sequence)


def found_event(event: LoggedEvent) -> LiveEvent:
    """One that was found in Postgres: it has no place in the stream of NATS."""
    return LiveEvent(event.number, event.kind, event.encoded(), NOWHERE, 0, order=event.sequence or 0)


def order_of(headers: Mapping[str, str] | None) -> int:
    """The place over all jobs; 0 where the message has none."""
    text = (headers or {}).get(SEQUENCE_HEADER, "")
    return int(text) if text.isdecimal() else 0


def client_of(headers: Mapping[str, str] | None) -> str:
    """Whose job it is about; empty where the message does not say."""
    return (headers or {}).get(CLIENT_HEADER, "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a watcher asked for. ``kinds``: empty for all."""

    kinds: frozenset[str] = frozenset()
    deltas: bool = True

    def takes(self, kind: str, number: int) -> bool:
        """``number``: 0 for a delta."""
        return (number > 0 or self.deltas) and (not self.kinds or kind in self.kinds)


ALL = Wanted()
