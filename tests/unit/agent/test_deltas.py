"""Deltas: few, in order, none of their text lost, and nothing of a void reply behind its reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pytest
from google.protobuf.json_format import ParseDict

from services.agent.events import DELTA_EVERY, MOST_A_SECOND, DeltaStream
from services.agent.model import Fragment
from services.contracts.v1.events_pb2 import Event
from services.jobs.models import Hold
from services.runtime.jetstream import Bus

HOLD = Hold(run_id=UUID(int=1), job_id=UUID(int=2), attempt=3, token=UUID(int=4))
DEADLINE_SECONDS = 30
MESSAGE_BYTES = 512 * 1024


class RecordingBus(Bus):
    """Takes what is sent, and may make the sender wait for it."""

    def __init__(self) -> None:
        super().__init__("nats://nowhere.invalid", name="test")
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.moments: list[float] = []
        self.sizes: list[int] = []
        self._change = asyncio.Condition()
        self.open = asyncio.Event()
        self.open.set()

    async def publish_unstored(self, subject: str, data: bytes) -> None:
        async with self._change:
            self.sent.append((subject, orjson.loads(data)))
            self.moments.append(asyncio.get_running_loop().time())
            self.sizes.append(len(data))
            self._change.notify_all()
        await self.open.wait()

    async def until_sent(self, number: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self._change:
            await self._change.wait_for(lambda: len(self.sent) >= number)

    @property
    def payloads(self) -> list[dict[str, Any]]:
        return [event["delta"] for _, event in self.sent if event["kind"] == "delta"]

    @property
    def deltas(self) -> list[tuple[int, str, int, str]]:
        """All pieces, whichever event they came in."""
        return [
            (delta["turn"], piece["type"], piece["block"], piece["text"])
            for delta in self.payloads
            for piece in (delta, *delta.get("more", ()))
        ]

    @property
    def words(self) -> str:
        return "".join(text for *_, text in self.deltas)

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for _, event in self.sent]

    @property
    def turns(self) -> list[int]:
        return [delta["turn"] for delta in self.payloads]

    def most_a_second(self) -> int:
        return max(sum(begin <= moment < begin + 1 for moment in self.moments) for begin in self.moments)


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
    first, second = deltas._sent  # when it meant to: a busy machine may carry out the one later than the other
    assert second - first >= DELTA_EVERY.total_seconds()


async def test_what_several_blocks_say_in_a_moment_is_one_event(bus: RecordingBus, deltas: DeltaStream):
    fragments = [text("a"), text("b"), Fragment("thinking", 0, "c"), text("d", block=1), text("e", block=1)]
    for fragment in fragments:
        deltas.add(1, fragment)
    await bus.until_sent(1)
    assert bus.payloads == [
        {
            "turn": 1,
            "type": "text",
            "text": "ab",
            "block": 0,
            "more": [{"type": "thinking", "text": "c", "block": 0}, {"type": "text", "text": "de", "block": 1}],
        }
    ]


async def test_an_event_is_of_one_turn(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("a"))
    deltas.add(2, text("b"))
    await deltas.flush()
    assert bus.payloads == [
        {"turn": 1, "type": "text", "text": "a", "block": 0},
        {"turn": 2, "type": "text", "text": "b", "block": 0},
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
    assert len(bus.sent) == 1


async def test_a_turn_of_many_blocks_at_once_is_two_events(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("first"))
    await bus.until_sent(1)
    for block in range(1, 121):
        deltas.add(1, text(str(block), block=block))
    await deltas.flush()
    assert len(bus.sent) == 2
    assert [text for *_, text in bus.deltas] == ["first", *map(str, range(1, 121))]


class QuickLoop(asyncio.SelectorEventLoop):
    """Its clock stands still while anything is to be done, and then is at the next moment that is waited for."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        waited_for = [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and waited_for:  # type: ignore[attr-defined]
            self.now = max(self.now, min(timer.when() for timer in waited_for))
        super()._run_once()  # type: ignore[misc]


@dataclass(frozen=True)
class Pacing:
    """Of a run's replies, in seconds."""

    turns: int
    first_after: float
    fragments: int
    fragment_every: float

    async def say(self, deltas: DeltaStream) -> tuple[str, dict[int, float]]:
        """All that was said, and when each turn began to speak; a block has three fragments."""
        said, begun = [], {}
        for turn in range(1, self.turns + 1):
            await asyncio.sleep(self.first_after)
            begun[turn] = asyncio.get_running_loop().time()
            for number in range(self.fragments):
                said.append(f"{turn}.{number} ")
                deltas.add(turn, text(said[-1], block=number // 3))
                await asyncio.sleep(self.fragment_every)
            await deltas.flush()
        return "".join(said), begun


async def told(pacing: Pacing) -> tuple[RecordingBus, float]:
    """All that came of it, and the longest that a turn's first fragment waited; nothing may be lost."""
    bus = RecordingBus()
    said, begun = await pacing.say(DeltaStream(bus, HOLD))
    assert bus.words == said
    return bus, max(bus.moments[bus.turns.index(turn)] - moment for turn, moment in begun.items())


@pytest.mark.parametrize(
    "pacing",
    [
        Pacing(turns=3, first_after=0.5, fragments=400, fragment_every=0.01),
        Pacing(turns=10, first_after=0.3, fragments=100, fragment_every=0.002),
        Pacing(turns=30, first_after=0.1, fragments=20, fragment_every=0.01),
        Pacing(turns=5, first_after=0.001, fragments=1_000, fragment_every=0.001),
        Pacing(turns=2, first_after=0.5, fragments=20_000, fragment_every=0.0001),
    ],
    ids=repr,
)
def test_no_second_has_more_than_twenty_and_turns_begin_at_once(pacing: Pacing):
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        bus, longest_wait = runner.run(told(pacing))
    assert (bus.most_a_second() <= MOST_A_SECOND, longest_wait) == (True, 0)


def test_where_a_second_is_full_a_beginning_waits():
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        bus, longest_wait = runner.run(told(Pacing(turns=60, first_after=0.05, fragments=10, fragment_every=0.005)))
    assert bus.most_a_second() <= MOST_A_SECOND
    assert 0 < longest_wait < 0.25


def test_more_turns_than_fit_a_second_have_one_event_each():
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        bus, _ = runner.run(told(Pacing(turns=200, first_after=0.001, fragments=3, fragment_every=0.001)))
    assert len(bus.sent) <= 200 + MOST_A_SECOND
    assert bus.turns == sorted(bus.turns)


async def test_what_comes_behind_an_end_waits_though_a_send_was_to_begin(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("a"))
    while not any(task.get_name() == "deltas" for task in asyncio.all_tasks()):  # noqa: ASYNC110  nobody tells of it
        await asyncio.sleep(0)
    await deltas.flush()
    deltas.add(1, text("b"))
    await bus.until_sent(2)
    assert [text for *_, text in bus.deltas] == ["a", "b"]
    first, second = deltas._sent  # when it meant to: a busy machine may carry out the one later than the other
    assert second - first >= DELTA_EVERY.total_seconds()


async def test_a_reset_forgets_what_waits(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("void"))
    await deltas.reset(1, "the stream broke\ud800")
    deltas.add(1, text("anew"))
    await bus.until_sent(2)
    assert bus.kinds == ["turn.reset", "delta"]
    assert bus.sent[0][1]["turnReset"] == {"turn": 1, "reason": "the stream broke\N{REPLACEMENT CHARACTER}"}
    assert bus.words == "anew"


async def test_nothing_void_follows_the_reset_of_a_send_under_way(bus: RecordingBus, deltas: DeltaStream):
    bus.open.clear()
    deltas.add(1, text("void"))
    await bus.until_sent(1)
    deltas.add(1, text("void, too"))
    reset = asyncio.create_task(deltas.reset(1, "the stream broke"))
    await bus.until_sent(2)
    bus.open.set()
    await reset
    deltas.add(1, text("anew"))
    await bus.until_sent(3)
    assert bus.kinds == ["delta", "turn.reset", "delta"]
    assert [text for *_, text in bus.deltas] == ["void", "anew"]


async def test_what_comes_while_a_send_is_under_way_follows_it(bus: RecordingBus, deltas: DeltaStream):
    bus.open.clear()
    deltas.add(1, text("a"))
    await bus.until_sent(1)
    deltas.add(1, text("b"))
    bus.open.set()
    await bus.until_sent(2)
    assert [text for *_, text in bus.deltas] == ["a", "b"]


async def test_half_a_character_waits_for_its_other_half(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("a\ud83d"))
    await bus.until_sent(1)
    deltas.add(1, text("\ude00b\ud83d"))
    await bus.until_sent(2)
    await deltas.flush()
    assert [text for *_, text in bus.deltas] == ["a", "\N{GRINNING FACE}b", "\N{REPLACEMENT CHARACTER}"]


async def test_half_a_character_does_not_stop_the_stream(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("\ud83d"))
    deltas.add(1, text("and on"))
    await bus.until_sent(1)
    assert bus.words == "\N{REPLACEMENT CHARACTER}and on"


@pytest.mark.parametrize("character", ["x", "\x01", "\N{GRINNING FACE}", '"'])
async def test_what_is_too_large_for_a_message_is_split(bus: RecordingBus, deltas: DeltaStream, character: str):
    deltas.add(1, Fragment("tool_input", 0, "a"))
    await bus.until_sent(1)
    for _ in range(400):
        deltas.add(1, Fragment("tool_input", 0, character * 1_000))
    deltas.add(1, text("b", block=1))
    await deltas.flush()
    assert bus.words == "a" + character * 400_000 + "b"
    assert max(bus.sizes) < MESSAGE_BYTES
    assert len(bus.sent) <= 7


async def test_many_small_pieces_are_no_message_that_is_too_large(bus: RecordingBus, deltas: DeltaStream):
    for block in range(20_000):
        deltas.add(1, Fragment("tool_input", block, "\x01"))
    await deltas.flush()
    assert len(bus.deltas) == 20_000
    assert max(bus.sizes) < MESSAGE_BYTES


async def test_a_delta_is_what_the_protobuf_has(bus: RecordingBus, deltas: DeltaStream):
    deltas.add(1, text("a"))
    deltas.add(1, text("b", block=2))
    await deltas.flush()
    event = ParseDict(bus.sent[0][1], Event())
    assert [(piece.type, piece.text, piece.block) for piece in event.delta.more] == [("text", "b", 2)]


async def test_closed_it_sends_no_more(bus: RecordingBus):
    deltas = DeltaStream(bus, HOLD)
    deltas.add(1, text("a"))
    deltas.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert bus.sent == []
