"""What one watcher may leave unread, and how it learns that it was too much."""

import pytest

from services.gateway.events.hub import LiveEvent, Subscription, SubscriptionEndedError, live_event
from services.runtime.jetstream import Tailed


def event(sequence: int, size: int = 1) -> LiveEvent:
    return LiveEvent(0, "delta", b"x" * size, "one", sequence)


async def test_events_come_in_order():
    subscription = Subscription()
    for sequence in (1, 2):
        subscription.offer(event(sequence))
    assert [await subscription.next(timeout_seconds=1) for _ in range(2)] == [event(1), event(2)]
    assert await subscription.next(timeout_seconds=0) is None


@pytest.mark.parametrize(("count", "size"), [(4, 1), (2, 60)])
async def test_too_many_or_too_large_events_end_it(count: int, size: int):
    subscription = Subscription(most_events=3, most_bytes=100)
    for sequence in range(count):
        subscription.offer(event(sequence, size))
    with pytest.raises(SubscriptionEndedError):
        await subscription.next(timeout_seconds=1)
    subscription.offer(event(9))
    with pytest.raises(SubscriptionEndedError):
        await subscription.next(timeout_seconds=1)


async def test_what_was_read_makes_room():
    subscription = Subscription(most_events=1, most_bytes=10)
    for sequence in range(5):
        subscription.offer(event(sequence, size=10))
        assert await subscription.next(timeout_seconds=1) == event(sequence, size=10)


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"{}", b'{"kind": "log", "number": "x"}', b'{"number": 1}'])
def test_a_message_that_is_no_event_is_none(data: bytes):
    assert live_event(Tailed("qd.evt.j._.log", data, 1, "one")) is None


def test_json_over_many_lines_becomes_one():
    found = live_event(Tailed("qd.evt.j._.log", b'{\n"kind":\r\n "log", "number": 3}', 7, "one"))
    assert found == LiveEvent(3, "log", b'{"kind":"log","number":3}', "one", 7)
