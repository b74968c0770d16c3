"""How many events the scheduler reads and sends at once: whatever their sizes, all of them come through, in order."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest

from services.jobs.outbox import Outbox
from services.runtime.jetstream import Bus, Outgoing
from services.runtime.postgres import Record, StoreUnavailableError
from services.scheduler.publication import _PART_BYTES, EventPublisher, _parts, message_of

MOST_BYTES = 100_000


def logged(sequence: int, characters: int) -> Record:
    data = f'{{"message": "{"x" * characters}"}}'
    time = datetime(2026, 1, 31, tzinfo=UTC)
    of_job = str(UUID(int=2)), None, sequence, 0
    return cast("Record", (str(UUID(int=sequence)), *of_job, "log", data, time, str(UUID(int=3)), sequence))


@pytest.mark.parametrize("characters", [10, 99_000, 2_000_000])
def test_no_part_is_larger_than_can_be_sent_in_time(characters: int) -> None:
    events = [logged(sequence, characters if sequence % 2 else 10) for sequence in range(1, 201)]

    parts = list(_parts(message_of(event, most_bytes=MOST_BYTES) for event in events))

    assert [int(UUID(message.message_id)) for part in parts for message in part] == list(range(1, 201))
    for part in parts:
        assert sum(len(message.data) for message in part[:-1]) < _PART_BYTES
        assert max(len(message.data) for message in part) <= MOST_BYTES
    assert len(parts) == (3 if characters == 99_000 else 1)


class SlowOutbox:
    """Has so many events, and reads no more than a few of them in the time that it has."""

    def __init__(self, events: int, *, most: int) -> None:
        self._events = events
        self._most = most

    async def next(self, confirmed: int, *, most: int) -> Sequence[Record]:
        if most > self._most:
            raise StoreUnavailableError
        through = min(confirmed + most, self._events)
        return [logged(sequence, 10) for sequence in range(confirmed + 1, through + 1)]


class Stream:
    is_connected = True
    most_bytes = MOST_BYTES

    def __init__(self) -> None:
        self.sequences: list[int] = []

    async def publish_in_order(self, messages: Sequence[Outgoing]) -> None:
        self.sequences += [int(UUID(message.message_id)) for message in messages]


async def test_events_that_cannot_be_read_together_are_read_in_smaller_numbers() -> None:
    stream = Stream()
    publisher = EventPublisher(cast("Outbox", SlowOutbox(100, most=20)), cast("Bus", stream))

    tries = 0
    while len(stream.sequences) < 100:
        tries += 1
        assert tries < 30
        with suppress(StoreUnavailableError):  # as the loop of the scheduler does, which then waits for a while
            await publisher.run_once()

    assert stream.sequences == list(range(1, 101))
