"""Messages of the stream as events, and the bytes that watchers share."""

import pytest

from services.gateway.events.live import LiveEvent, Wanted, client_of, live_event, order_of
from services.gateway.events.position import Position
from services.runtime.jetstream import Tailed


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"{}", b'{"kind": "log", "number": "x"}', b'{"number": 1}'])
def test_a_message_that_is_no_event_is_none(data: bytes):
    assert live_event(Tailed("qd.evt.j._.log", data, 1, "one")) is None


def test_json_over_many_lines_becomes_one():
    found = live_event(Tailed("qd.evt.j._.log", b'{\n"kind":\r\n "log", "number": 3}', 7, "one"))
    assert found == LiveEvent(3, "log", b'{"kind":"log","number":3}', "one", 7)


def test_those_who_are_equally_far_share_the_bytes():
    event = LiveEvent(3, "log", b"{}", "one", 7)
    first, second = event.frame(3), event.frame(3)
    assert first.chunk() is second.chunk()
    assert first.position is second.position
    assert first.chunk() == b"21\r\nid: 3:one:7\nevent: log\ndata: {}\n\n\r\n"


def test_one_who_is_elsewhere_gets_an_id_of_his_own():
    event = LiveEvent(0, "delta", b"{}", "one", 7)
    assert [event.frame(number).position for number in (3, 4, 3)] == [
        Position(3, "one", 7),
        Position(4, "one", 7),
        Position(3, "one", 7),
    ]


@pytest.mark.parametrize(
    ("headers", "order"),
    [(None, 0), ({}, 0), ({"Qd-Sequence": "12"}, 12), ({"Qd-Sequence": "-1"}, 0), ({"Qd-Sequence": "x"}, 0)],
)
def test_a_place_over_all_jobs_is_read_or_not_there(headers, order):
    assert order_of(headers) == order


def test_whose_job_it_is_may_not_be_said():
    assert client_of({"Qd-Client": "c"}) == "c"
    assert client_of(None) == ""


@pytest.mark.parametrize(
    ("wanted", "kind", "number", "takes"),
    [
        (Wanted(), "delta", 0, True),
        (Wanted(deltas=False), "delta", 0, False),
        (Wanted(deltas=False), "turn.reset", 0, False),
        (Wanted(deltas=False), "log", 1, True),
        (Wanted(frozenset({"log"})), "log", 1, True),
        (Wanted(frozenset({"log"})), "run.finished", 1, False),
        (Wanted(frozenset({"delta"})), "delta", 0, True),
    ],
)
def test_a_watcher_gets_what_it_asked_for(wanted: Wanted, kind: str, number: int, takes: bool):
    assert wanted.takes(kind, number) is takes
