"""Events as the gateway streams them: read, put in order, and followed over broken connections."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import httpx
from httpx_sse import EventSource, ServerSentEvent

from quarterdeck.errors import ProtocolError, RateLimitedError, UnavailableError
from quarterdeck.transport import Transport, asked_wait_seconds, raise_for_answer

GAP = "gap"
JOB_FINISHED = "job.finished"
RUN_FINISHED = "run.finished"
HEALTHY_SECONDS = 20.0
"""A connection that lasted longer than the gateway's pause between comments was a good one."""

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact of a job or run.

    ``id``: pass it as ``after`` to go on behind this event, in a stream of the same kind. ``number``: 1, 2, 3 … within
    the job; 0 for a delta.
    ``run_id``: empty for the job as a whole. ``payload``: its fields by their JSON names; defaults are left out.
    The kind `gap` stands for durable events that the gateway no longer has: `missedFrom` to `missedTo`.
    """

    id: str
    kind: str
    job_id: str
    run_id: str
    number: int
    attempt: int
    time: datetime | None
    payload: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """One flat object, fit for a line of JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            "jobId": self.job_id,
            "runId": self.run_id,
            "number": self.number,
            "attempt": self.attempt,
            "time": self.time.isoformat() if self.time else None,
            "payload": self.payload,
        }


@dataclass
class Progress(ABC):
    """How far a reader of a stream has come; decides what is new. It does no I/O."""

    last_id: str = ""
    number: int = 0
    _attempts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def after(cls, event_id: str | None) -> Self:
        """``event_id``: `<durable number>:<incarnation>:<sequence>`; None: before the first event."""
        return cls(event_id or "", _number(event_id or ""))

    @abstractmethod
    def take(self, event: Event) -> bool:
        """Whether this event is new; if so this moves behind it. Raises MissedEventsError at a hole."""

    @abstractmethod
    def ends_with(self, event: Event) -> bool:
        """Whether nothing comes behind ``event``."""

    def begin(self, event_id: str) -> None:
        """The stream told where it begins, before any event."""
        if not self.last_id:
            self.last_id, self.number = event_id, _number(event_id)

    def _skip(self, event: Event) -> bool:
        missed_to = int(event.payload.get("missedTo", 0))
        if missed_to <= self.number:
            return False
        self.number = missed_to
        return self._move(event)

    def _is_current(self, event: Event) -> bool:
        """A delta is dropped where a later attempt was seen, or where it was seen itself."""
        return event.attempt >= self._attempts.get(event.run_id, 0) and not _is_behind(event.id, self.last_id)

    def _move(self, event: Event) -> bool:
        self._attempts[event.run_id] = max(event.attempt, self._attempts.get(event.run_id, 0))
        self.last_id = event.id or self.last_id
        return True


@dataclass
class Position(Progress):
    """In one job's events, whose numbers have no holes."""

    def take(self, event: Event) -> bool:
        if event.kind == GAP:
            return self._skip(event)
        if event.number == 0:
            return self._is_current(event) and self._move(event)
        if event.number <= self.number:
            return False
        if event.number > self.number + 1:
            raise MissedEventsError(f"events {self.number + 1} to {event.number - 1} did not come")
        self.number = event.number
        return self._move(event)

    def ends_with(self, event: Event) -> bool:
        return event.kind == JOB_FINISHED


@dataclass
class AllPosition(Progress):
    """In the events of all jobs; ``number`` is the place over all of them, where others' events leave holes."""

    def take(self, event: Event) -> bool:
        if event.kind == GAP:
            return self._skip(event)
        if event.number == 0:
            return self._is_current(event) and self._move(event)
        place = _number(event.id)
        if place <= self.number:
            return False
        self.number = place
        self._move(event)
        if event.kind == RUN_FINISHED:
            del self._attempts[event.run_id]  # a stream without end must not remember every run
        return True

    def ends_with(self, event: Event) -> bool:  # noqa: ARG002  whatever it is
        return False


class MissedEventsError(UnavailableError):
    """The stream jumped over durable events without saying so."""


def _number(event_id: str) -> int:
    number = event_id.partition(":")[0]
    return int(number) if number.isdecimal() else 0


def _is_behind(event_id: str, last_id: str) -> bool:
    """Whether an event is not above the last one, both being of one incarnation of the stream."""
    (incarnation, sequence), (last_incarnation, last_sequence) = _stream(event_id), _stream(last_id)
    return incarnation == last_incarnation and 0 < sequence <= last_sequence


def _stream(event_id: str) -> tuple[str, int]:
    _, _, rest = event_id.partition(":")
    incarnation, _, sequence = rest.rpartition(":")
    return incarnation, int(sequence) if sequence.isdecimal() else 0


def decode(sse: ServerSentEvent) -> Event | None:
    """The event in one SSE message; None where it is only a comment. Raises ProtocolError."""
    if not sse.data:
        return None
    try:
        data = json.loads(sse.data)
        kind = sse.event if sse.event == GAP else str(data["kind"])
        return Event(
            id=sse.id,
            kind=kind,
            job_id=data.get("jobId", ""),
            run_id=data.get("runId", ""),
            number=data.get("number", 0),
            attempt=data.get("attempt", 0),
            time=datetime.fromisoformat(data["time"]) if "time" in data else None,
            payload=data if kind == GAP else data.get(_payload_key(kind), {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(
            f"The gateway sent an event that cannot be read ({error}). Are client and gateway of one version?"
        ) from error


def _payload_key(kind: str) -> str:
    first, *others = re.split(r"[._]", kind)
    return first + "".join(word.title() for word in others)


async def follow(
    transport: Transport,
    path: str,
    *,
    position: Progress,
    patience_seconds: float,
    is_over: Callable[[], Awaitable[bool]],
) -> AsyncGenerator[Event, None]:
    """Every durable event behind ``position`` once and in order, and the deltas that can be had, to the stream's end.

    A connection that breaks is made again behind the last event, with back-off; after ``patience_seconds`` without
    a new event while no connection holds, UnavailableError is raised. ``is_over`` is asked where a stream ends
    without a word: it says whether nothing more will come, the job being final.
    """
    failures = _Failures(patience_seconds)
    was_over = False
    while True:
        trouble: UnavailableError | RateLimitedError = UnavailableError("The event stream ended too early.")
        opened, number = time.monotonic(), position.number
        try:
            async with aclosing(_read(transport, path, position.last_id)) as events:
                async for event in events:
                    if isinstance(event, str):
                        position.begin(event)
                        continue
                    if position.take(event):
                        failures.forget()
                        yield event
                    if position.ends_with(event):
                        return
            if was_over and position.number == number:
                return
            was_over = await is_over()
        except httpx.TransportError as error:
            trouble = transport.no_answer(error)
        except (UnavailableError, RateLimitedError) as error:
            trouble = error
        await failures.wait(trouble, connected_seconds=time.monotonic() - opened)


async def _read(transport: Transport, path: str, last_id: str) -> AsyncGenerator[Event | str, None]:
    """Events, and the id alone of a message without one."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    async with transport.stream(path, headers) as response:
        if not response.is_success:
            await response.aread()
        raise_for_answer(response)
        if "text/event-stream" not in response.headers.get("Content-Type", ""):
            raise ProtocolError(f"{transport.address} does not stream events. Is it a Quarterdeck gateway?")
        async with aclosing(EventSource(response).aiter_sse()) as messages:
            async for message in messages:
                if event := decode(message) or message.id:
                    yield event


@dataclass
class _Failures:
    """Connections that brought nothing new, one after the other."""

    patience_seconds: float
    _count: int = 0
    _since: float = 0.0

    def forget(self) -> None:
        self._count = 0

    async def wait(self, error: UnavailableError | RateLimitedError, *, connected_seconds: float) -> None:
        """Pause before the next connection, longer each time; raises ``error`` where the patience is used up."""
        if self._count == 0 or connected_seconds > HEALTHY_SECONDS:
            self._count, self._since = 0, time.monotonic()
        backoff = min(_FIRST_WAIT_SECONDS * 2**self._count, _LONGEST_WAIT_SECONDS)
        pause = max(backoff * random.uniform(0.5, 1.0), asked_wait_seconds(error))  # noqa: S311 (no secret)
        self._count += 1
        if time.monotonic() - self._since + pause > self.patience_seconds:
            raise error
        await asyncio.sleep(pause)
