"""What an agent does in a session, told as the agent tells it; and how a client of the wire follows it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
from httpx_sse import EventSource, ServerSentEvent

from services.contracts.subjects import event as event_subject
from services.contracts.words import EventKind, ExitReason, Outcome
from services.jobs.eventlog import encode_event
from services.jobs.models import Checkpoint, ClaimedRun, ModelUse, Usage
from services.jobs.outbox import Outbox
from services.jobs.unit import Draft
from services.runtime.jetstream import Bus, Outgoing
from services.scheduler.publication import EventPublisher
from tests.contract.serving import Fleet
from tests.integration.waiting import until_async

START = "/interactive/start"
REPOSITORY = "owner/repo"
LAST = ("complete", "error")
STEP_SECONDS = 30
ODD_TEXT = "first line\nsecond\r\nthird\rfourth \u2028 \u2029 \x85 \x0b \x1c ünïcödé 🚢 data: x\n\nevent: complete"
"""What parsers of streams stumble over."""
TURN = ["claude_start", "claude_delta", "claude_delta", "claude_end", "file_change"]


class Stage:
    def __init__(self, fleet: Fleet, bus: Bus) -> None:
        self.fleet = fleet
        self._bus = bus
        self._publisher = EventPublisher(Outbox(fleet.domain.database), bus)

    async def job_of(self, session_id: str) -> UUID:
        """Waits until the session is there."""
        found: list[UUID] = []

        async def is_there() -> bool:
            rows = await self.fleet.domain.rows("SELECT id FROM jobs WHERE metadata ->> 'session' = $1", session_id)
            found.extend(row["id"] for row in rows)
            return bool(found)

        await until_async(is_there)
        assert len(found) == 1
        return found[0]

    async def newest(self, prompt: str) -> str:
        """The id of the one session with this prompt, once it is there."""
        found: list[str] = []

        async def is_there() -> bool:
            rows = await self.fleet.domain.rows("SELECT metadata FROM jobs WHERE prompt = $1", prompt)
            found.extend(row["metadata"]["session"] for row in rows)
            return bool(found)

        await until_async(is_there)
        (session_id,) = found
        return session_id

    async def begin(self, session_id: str) -> ClaimedRun:
        """An agent begins with the session."""
        run = await self.fleet.claim(await self.job_of(session_id))
        await self.publish()
        return run

    async def tell(self, run: ClaimedRun, *told: tuple[EventKind, dict[str, Any]], published: bool = True) -> None:
        await self.fleet.domain.running.tell(run.hold, [Draft(kind, data) for kind, data in told])
        if published:
            await self.publish()

    async def delta(self, run: ClaimedRun, turn: int, text: str, *, of: str = "text") -> None:
        event_id = str(uuid4())
        data = encode_event(
            event_id=event_id,
            job_id=str(run.hold.job_id),
            run_id=str(run.hold.run_id),
            number=0,
            attempt=1,
            kind=EventKind.DELTA,
            time=datetime.now(UTC),
            data={"turn": turn, "type": of, "text": text, "block": 0},
        )
        subject = event_subject(str(run.hold.job_id), str(run.hold.run_id), EventKind.DELTA)
        await self._bus.publish(Outgoing(subject, data, event_id))

    async def turn(self, run: ClaimedRun, number: int, *texts: str) -> None:
        """A turn whose reply is ``texts``, one delta each, and whose tool then changes a file."""
        await self.tell(run, (EventKind.TURN_STARTED, {"turn": number, "model": "m"}))
        for text in texts:
            await self.delta(run, number, text)
        await self.delta(run, number, "not for clients", of="tool_input")
        draft = Draft(EventKind.TURN_ENDED, {"turn": number, "stopReason": "tool_use", "durationMs": 5})
        use = ModelUse(Usage(1, 1), "m")
        await self.fleet.domain.running.checkpoint(run.hold, Checkpoint(usage=use, events=[draft]))
        await self.tell(run, (EventKind.FILE_CHANGED, {"path": f"{number}.py", "change": "added"}))

    async def complete(self, run: ClaimedRun, summary: str = "done") -> None:
        await self.fleet.domain.running.complete(run.hold, Outcome.NO_CHANGES, summary=summary)
        await self.publish()

    async def fail(self, run: ClaimedRun, error: str) -> None:
        await self.fleet.domain.running.fail(run.hold, ExitReason.MODEL_REFUSED, error=error)
        await self.publish()

    async def play(self, session_id: str, *, turns: int = 2) -> ClaimedRun:
        """A whole session that changes nothing in the end."""
        run = await self.begin(session_id)
        for number in range(1, turns + 1):
            await self.turn(run, number, f"say {number}: ", ODD_TEXT)
        await self.complete(run)
        return run

    async def publish(self) -> None:
        await self._publisher.run_once()

    async def state_of(self, session_id: str) -> str:
        row = await self.fleet.domain.row("jobs", await self.job_of(session_id))
        return "cancelling" if row["cancel_requested_at"] and row["finished_at"] is None else str(row["state"])


class Frames:
    """One connection to a session."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.seen: list[ServerSentEvent] = []
        self._messages = EventSource(answer).aiter_sse()

    @property
    def session_id(self) -> str:
        return self.answer.headers["X-Session-Id"]

    async def next(self) -> ServerSentEvent:
        async with asyncio.timeout(STEP_SECONDS):
            message = await anext(self._messages)
            while not message.data:
                message = await anext(self._messages)
        assert message.id
        self.seen.append(message)
        return message

    async def until(self, name: str) -> dict[str, Any]:
        """Read on to the next frame ``name``; its data."""
        while (message := await self.next()).event != name:
            assert message.event not in LAST, message.data
        return data_of(message)

    async def rest(self) -> list[ServerSentEvent]:
        """All that was seen, once the stream has ended."""
        try:
            while True:
                await self.next()
        except StopAsyncIteration:
            return self.seen


def data_of(message: ServerSentEvent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message.data)
    return found


def names(messages: list[ServerSentEvent]) -> list[str]:
    """Of all but those that tell of the status."""
    return [message.event for message in messages if message.event != "status"]


@asynccontextmanager
async def started(api: httpx.AsyncClient, *, after: str | None = None, **body: Any) -> AsyncIterator[Frames]:
    """Start a session, or attach to one by POST ``after`` a frame. Leaving the context cuts the connection."""
    headers = {"Last-Event-ID": after} if after is not None else {}
    wanted = {"prompt": "Explain how authentication works", "repository": {"name": REPOSITORY}} | body
    async with _open(api.stream("POST", START, json=wanted, headers=headers)) as frames:
        yield frames


@asynccontextmanager
async def attached(api: httpx.AsyncClient, session_id: str, after: str = "") -> AsyncIterator[Frames]:
    """Attach by GET."""
    headers = {"Last-Event-ID": after} if after else {}
    async with _open(api.stream("GET", START, params={"sessionId": session_id}, headers=headers)) as frames:
        yield frames


@asynccontextmanager
async def _open(opening: Any) -> AsyncIterator[Frames]:
    async with opening as answer:
        if answer.status_code != httpx.codes.OK:
            await answer.aread()
        assert answer.status_code == httpx.codes.OK, answer.text
        yield Frames(answer)
