"""Deltas: merged while they wait, in order, and nothing of a void reply behind its reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.agent.events import DeltaStream
from services.agent.model import Fragment
from services.jobs.models import Hold
from services.runtime.jetstream import Bus

HOLD = Hold(run_id=UUID(int=1), job_id=UUID(int=2), attempt=3, token=UUID(int=4))
DEADLINE_SECONDS = 30


class RecordingBus(Bus):
    """Takes what is sent, and may make the sender wait for it."""

    def __init__(self) -> None:
        super().__init__("nats://nowhere.invalid", name="test")
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._change = asyncio.Condition()
        self.open = asyncio.Event()
        self.open.set()

    async def publish_unstored(self, subject: str, data: bytes) -> None:
        async with self._change:
            self.sent.append((subject, orjson.loads(data)))
            self._change.notify_all()
        await self.open.wait()

    async def until_sent(self, number: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self._change:
            await self._change.wait_for(lambda: len(self.sent) >= number)

    @property
    def deltas(self) -> list[tuple[int, str, int, str]]:
        found = [event["delta"] for _, event in self.sent if event["kind"] == "delta"]
        return [(delta["turn"], delta["type"], delta["block"], delta["text"]) for delta in found]

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for _, event in self.sent]


@pytest.fixture
async def bus() -> RecordingBus:
    return RecordingBus()


@pytest.fixture
async def deltas(bus: RecordingBus) -> AsyncIterator[DeltaStream]:
    stream = DeltaStream(bus, HOLD)
    yield stream
    stream.close()


def text(words: str, block: int = 0) -> Fragment:
    return Fragment("text", block, words)


async def test_the_first_fragment_goes_by_itself_and_the_rest_together(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("a"))
    await bus.until_sent(1)
    for words in "bcd":
        deltas.add(1, text(words))
    await bus.until_sent(2)
    assert bus.deltas == [(1, "text", 0, "a"), (1, "text", 0, "bcd")]


async def test_only_what_belongs_together_is_merged(bus: RecordingBus, deltas: DeltaStream):
    fragments = [text("a"), text("b"), Fragment("thinking", 0, "c"), text("d", block=1), text("e", block=1)]
    for fragment in fragments:
        deltas.add(1, fragment)
    deltas.add(2, text("f", block=1))
    await deltas.flush()
    assert bus.deltas == [
        *((1, "text", 0, "ab"), (1, "thinking", 0, "c")),
        *((1, "text", 1, "de"), (2, "text", 1, "f")),
    ]


async def test_who_they_are_of_is_in_subject_and_event(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("a"))
    await deltas.flush()
    ((subject, event),) = bus.sent
    assert subject == f"qd.evt.{HOLD.job_id}.{HOLD.run_id}.delta"
    assert (event["jobId"], event["runId"], event["attempt"]) == (str(HOLD.job_id), str(HOLD.run_id), 3)
    assert "number" not in event


async def test_flush_leaves_nothing_waiting(bus: RecordingBus, deltas: DeltaStream):
    for number in range(5):
        deltas.add(1, text(str(number), block=number))
    await deltas.flush()
    assert [text for *_, text in bus.deltas] == ["0", "1", "2", "3", "4"]
    await deltas.flush()
    assert len(bus.sent) == 5


async def test_a_reset_forgets_what_waits(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("void"))
    await deltas.reset(1, "the stream broke\ud800")
    deltas.add(1, text("anew"))
    await bus.until_sent(2)
    assert bus.kinds == ["turn.reset", "delta"]
    assert bus.sent[0][1]["turnReset"] == {"turn": 1, "reason": "the stream broke\N{REPLACEMENT CHARACTER}"}
    assert [text for *_, text in bus.deltas] == ["anew"]


async def test_nothing_void_follows_the_reset_of_a_send_under_way(bus: RecordingBus, deltas: DeltaStream):
    bus.open.clear()
    for block in range(3):
        deltas.add(1, text("void", block=block))
    await bus.until_sent(1)
    reset = asyncio.create_task(deltas.reset(1, "the stream broke"))
    await bus.until_sent(2)
    bus.open.set()
    await reset
    deltas.add(1, text("anew"))
    await bus.until_sent(3)
    assert bus.kinds == ["delta", "turn.reset", "delta"]
    assert [text for *_, text in bus.deltas] == ["void", "anew"]


async def test_half_a_character_does_not_stop_the_stream(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("\ud83d"))
    await bus.until_sent(1)
    deltas.add(1, text("and on"))
    await bus.until_sent(2)
    assert [text for *_, text in bus.deltas] == ["\N{REPLACEMENT CHARACTER}", "and on"]


async def test_no_delta_is_larger_than_a_message_may_be(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, Fragment("tool_input", 0, "x" * 1_000_000))
    await deltas.flush()
    assert [len(text) for *_, text in bus.deltas] == [100_000]


async def test_closed_it_sends_no_more(bus: RecordingBus):
    deltas = DeltaStream(bus, HOLD)
    deltas.add(1, text("a"))
    deltas.close()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "deltas"), return_exceptions=True)
    assert bus.sent == []
