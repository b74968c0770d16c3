"""What the client takes for a new event, without any connection."""

import json

import pytest
from httpx_sse import ServerSentEvent

from quarterdeck.errors import ProtocolError
from quarterdeck.sse import AllPosition, Event, MissedEventsError, Position, decode


def event(number: int, event_id: str = "", *, attempt: int = 0, run: str = "r", kind: str = "log", **payload) -> Event:
    return Event(
        id=event_id,
        kind=kind,
        job_id="j",
        run_id=run,
        number=number,
        attempt=attempt,
        time=None,
        payload=payload,
    )


def test_durable_events_are_taken_once_and_in_order():
    position = Position()
    assert [position.take(event(number)) for number in (1, 1, 2, 1, 3)] == [True, False, True, False, True]


def test_a_hole_between_durable_events_is_an_error():
    position = Position.after("1:x:1")
    with pytest.raises(MissedEventsError, match="events 2 to 4"):
        position.take(event(5))


def test_an_announced_gap_closes_the_hole():
    position = Position.after("1:x:1")
    assert position.take(event(0, kind="gap", missedFrom=2, missedTo=4))
    assert not position.take(event(0, kind="gap", missedFrom=2, missedTo=4))
    assert position.take(event(5))


def test_a_delta_is_taken_once_within_one_incarnation_of_the_stream():
    position = Position.after("3:one:10")
    ids = ("3:one:10", "3:one:11", "3:one:11", "3:two:1", "3:two:1")
    assert [position.take(event(0, each)) for each in ids] == [False, True, False, True, False]


def test_a_delta_of_an_attempt_that_is_over_is_dropped():
    position = Position()
    assert position.take(event(1, attempt=2))
    assert not position.take(event(0, "1:x:2", attempt=1))
    assert position.take(event(0, "1:x:3", attempt=1, run="another"))
    assert position.take(event(0, "1:x:4", attempt=2))


def test_of_all_jobs_each_place_is_taken_once_and_holes_are_others():
    position = AllPosition.after("3:one:7")
    events = [event(1, "3:one:7"), event(9, "5:one:8"), event(1, "5:two:1"), event(2, "8:two:2")]
    assert [position.take(each) for each in events] == [False, True, False, True]
    assert position.last_id == "8:two:2"


def test_of_all_jobs_a_gap_is_told_once_and_gone_over():
    position = AllPosition.after("3:one:7")
    gap = event(0, "9:-:0", kind="gap", missedFrom=4, missedTo=9)
    assert [position.take(gap), position.take(gap)] == [True, False]
    assert [position.take(event(1, "9:-:0")), position.take(event(2, "10:-:0"))] == [False, True]


def test_of_all_jobs_deltas_are_taken_as_of_one():
    position = AllPosition.after("3:one:10")
    ids = ("3:one:10", "3:one:11", "3:one:11", "3:two:1")
    assert [position.take(event(0, each)) for each in ids] == [False, True, False, True]
    assert position.take(event(1, "4:two:2", attempt=2))
    assert not position.take(event(0, "4:two:3", attempt=1))


def test_of_all_jobs_a_run_that_has_finished_is_forgotten():
    position = AllPosition()
    for number in range(1, 101):
        assert position.take(event(1, f"{number}:x:{number}", run=f"r{number}", attempt=1))
        assert position.take(event(2, f"{number + 1_000}:x:{number}", run=f"r{number}", kind="run.finished")) is True
        position.number = number
    assert len(position._attempts) == 0


def test_where_a_stream_begins_counts_until_there_was_an_event():
    position = AllPosition()
    position.begin("7:one:3")
    assert (position.last_id, position.number) == ("7:one:3", 7)
    assert position.take(event(1, "8:one:4"))
    position.begin("7:one:3")
    assert (position.last_id, position.number) == ("8:one:4", 8)


@pytest.mark.parametrize(
    ("event_id", "number"), [(None, 0), ("", 0), ("7:one:20", 7), ("7", 7), ("7:one:more:20", 7), ("x:one:1", 0)]
)
def test_a_position_is_read_from_an_event_id(event_id, number):
    assert Position.after(event_id).number == number


def test_an_event_is_read_from_proto3_json():
    data = {"kind": "job.cancel_requested", "jobId": "j", "jobCancelRequested": {"by": "me"}}
    read = decode(ServerSentEvent(event="job.cancel_requested", data=json.dumps(data), id="4:x:9"))
    assert read == Event(
        id="4:x:9",
        kind="job.cancel_requested",
        job_id="j",
        run_id="",
        number=0,
        attempt=0,
        time=None,
        payload={"by": "me"},
    )


def test_a_comment_is_no_event():
    assert decode(ServerSentEvent(id="1:x:1")) is None


@pytest.mark.parametrize("data", ["{", "[]", "{}", '{"kind": "log", "time": "noon"}', '{"kind": "log", "time": 5}'])
def test_what_cannot_be_read_is_said(data):
    with pytest.raises(ProtocolError, match="cannot be read"):
        decode(ServerSentEvent(event="log", data=data))
