"""What one watcher may leave unread, how it learns that it was too much, and what is taken past its task."""

import asyncio
from dataclasses import dataclass, field

import pytest

from services.gateway.events.live import LiveEvent
from services.gateway.events.subscription import Subscription, SubscriptionEndedError

STEP_SECONDS = 5.0


def event(sequence: int, size: int = 1) -> LiveEvent:
    return LiveEvent(0, "delta", b"x" * size, "one", sequence)


async def next_of(subscription: Subscription) -> LiveEvent:
    async with asyncio.timeout(STEP_SECONDS):
        return await subscription.next()


@dataclass
class Taking:
    """A sink that takes as many events as it is told to."""

    room: int
    taken: list[LiveEvent] = field(default_factory=list)
    is_there: bool = True

    def take(self, event: LiveEvent) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self.taken.append(event)
        return True

    def tick(self) -> bool:
        return self.is_there


async def test_events_come_in_order():
    subscription = Subscription()
    for sequence in (1, 2):
        subscription.offer(event(sequence))
    assert [await next_of(subscription) for _ in range(2)] == [event(1), event(2)]


async def test_who_waits_is_woken():
    subscription = Subscription()
    waiting = asyncio.create_task(next_of(subscription))
    await asyncio.sleep(0)
    subscription.offer(event(1))
    assert await waiting == event(1)


@pytest.mark.parametrize(("count", "size"), [(4, 1), (2, 60)])
async def test_too_many_or_too_large_events_end_it(count: int, size: int):
    subscription = Subscription(most_events=3, most_bytes=100)
    for sequence in range(count):
        subscription.offer(event(sequence, size))
    with pytest.raises(SubscriptionEndedError):
        await next_of(subscription)
    subscription.offer(event(9))
    with pytest.raises(SubscriptionEndedError):
        await next_of(subscription)


async def test_what_was_read_makes_room():
    subscription = Subscription(most_events=1, most_bytes=10)
    for sequence in range(5):
        subscription.offer(event(sequence, size=10))
        assert await next_of(subscription) == event(sequence, size=10)


async def test_a_sink_takes_what_comes_while_the_task_waits_and_nothing_else():
    subscription, sink = Subscription(), Taking(room=2)
    subscription.sink = sink
    subscription.offer(event(1))  # the task is busy still
    assert await next_of(subscription) == event(1)
    waiting = asyncio.create_task(next_of(subscription))
    await asyncio.sleep(0)
    for sequence in (2, 3, 4):
        subscription.offer(event(sequence))
    sink.room = 9
    subscription.offer(event(5))  # the fourth goes first
    assert sink.taken == [event(2), event(3)]
    assert await waiting == event(4)
    assert await next_of(subscription) == event(5)


async def test_a_watcher_that_is_not_there_any_more_is_ended_by_the_clock():
    subscription, sink = Subscription(), Taking(room=0)
    subscription.sink = sink
    waiting = asyncio.create_task(next_of(subscription))
    await asyncio.sleep(0)
    subscription.tick()
    assert not waiting.done()
    sink.is_there = False
    subscription.tick()
    with pytest.raises(SubscriptionEndedError):
        await waiting
