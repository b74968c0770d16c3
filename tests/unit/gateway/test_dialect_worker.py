"""What clients of the Worker API are told of each kind of event, and the ids of its frames."""

from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest

from services.contracts.words import EventKind
from services.gateway.dialects.worker.frames import Addresses, told_of
from services.gateway.dialects.worker.places import Place
from services.gateway.dialects.worker.sessions import Session
from services.gateway.events.live import Frame
from services.gateway.events.position import BadPositionError, Position
from services.jobs.eventlog import encode_event

SESSION = Session("a session", uuid4(), "Do it")
NAMES = {
    EventKind.JOB_SUBMITTED: "connected",
    EventKind.TURN_STARTED: "claude_start",
    EventKind.DELTA: "claude_delta",
    EventKind.TURN_ENDED: "claude_end",
    EventKind.FILE_CHANGED: "file_change",
}
UNTOLD = {
    *(EventKind.JOB_STARTED, EventKind.RUN_FINISHED, EventKind.RUN_WAITING, EventKind.RUN_MESSAGE),
    *(EventKind.TOOL_ENDED, EventKind.USAGE, EventKind.CHANGESET_UPDATED),
}


@pytest.mark.parametrize("kind", sorted(set(EventKind) - {EventKind.JOB_FINISHED}))
def test_each_kind_of_event_is_told_or_left_out_though_it_says_nothing_of_itself(kind: EventKind) -> None:
    data = encode_event(
        event_id="e",
        job_id="j",
        run_id="r",
        number=3,
        attempt=1,
        kind=kind,
        time=datetime(2026, 1, 2, tzinfo=UTC),
        data={},
    )
    told = told_of(Frame(Position(3), kind, data), SESSION, Addresses(worktrees="", root="http://here"))
    if kind in UNTOLD:
        assert told is None
        return
    assert told is not None
    assert told.name == NAMES.get(kind, "status")
    assert orjson.loads(told.data)["timestamp"] == "2026-01-02T00:00:00.000Z"


@pytest.mark.parametrize(
    ("delta", "content"),
    [
        ({"type": "text", "text": "a"}, "a"),
        ({"type": "thinking", "text": "hm", "more": [{"type": "text", "text": "a", "block": 1}]}, "a"),
        (
            {"type": "text", "text": "a", "more": [{"type": "tool_input", "text": "{"}, {"type": "text", "text": "b"}]},
            "ab",
        ),
        ({"type": "thinking", "text": "hm", "more": [{"type": "tool_input", "text": "{"}]}, None),
    ],
)
def test_a_delta_of_several_blocks_tells_its_text_alone(delta: dict[str, object], content: str | None) -> None:
    data = orjson.dumps({"time": "2026-01-02T00:00:00Z", "kind": "delta", "delta": {"turn": 2, **delta}})
    told = told_of(Frame(Position(3), "delta", data), SESSION, Addresses(worktrees="", root="http://here"))
    assert (told and orjson.loads(told.data)["content"]) == content


def test_an_event_of_a_later_version_is_left_out() -> None:
    """It is read where all watchers are served: an error there would end the gateway."""
    data = b'{"eventId":"e","jobId":"j","number":3,"kind":"run.teleported","time":"2026-01-02T00:00:00Z"}'
    addresses = Addresses(worktrees="", root="http://here")
    assert told_of(Frame(Position(3), "run.teleported", data), SESSION, addresses) is None


@pytest.mark.parametrize("text", ["0:-:0:0", "12:abc:34:5"])
def test_an_id_is_read_as_it_was_written(text: str) -> None:
    assert str(Place.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "1", "1:-:0", "1:-:0:", "1:-:0:-1", "1:-:0:٣", "1:-:0:1234567890", ":::", "1:-:0:0:0"]
)
def test_another_id_is_refused(text: str) -> None:
    with pytest.raises(BadPositionError):
        Place.parse(text)
