"""Each event kind is a payload of the protobuf `Event`, and what the code writes decodes as that message."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from google.protobuf import json_format

from services.agent import events as agent_events
from services.agent.model import Reply
from services.agent.tools import FileChange, ToolCall, ToolResult
from services.contracts.v1.events_pb2 import Event
from services.contracts.words import EventKind
from services.jobs.eventlog import MOST_BYTES, LoggedEvent, encode_event, payload_name
from services.jobs.models import Usage
from services.jobs.unit import Draft

CALL = ToolCall("toolu_1", "edit_file", {"path": "a"})
SECOND = timedelta(seconds=1)
REPLY = Reply([], "tool_use", "a-model", Usage(1, 2, 3, 4))
CHANGESET = "019aa5c0-0000-7000-8000-000000000001"

FROM_THE_AGENT: list[Draft] = [
    agent_events.prepared({"baseSha": "a" * 40, "branch": "quarterdeck/x-1"}),
    agent_events.turn_started(1, "a-model"),
    agent_events.turn_ended(1, REPLY, SECOND),
    agent_events.tool_started(1, CALL, "a"),
    agent_events.tool_ended(1, CALL, ToolResult("toolu_1", "ok", took=SECOND)),
    agent_events.file_changed(FileChange("a", "modified")),
    agent_events.log_line("info", "hello"),
]
# The other kinds' payloads, as the domain and the agent's deltas write them.
PAYLOADS: dict[EventKind, dict[str, Any]] = {draft.kind: draft.data for draft in FROM_THE_AGENT} | {
    EventKind.JOB_SUBMITTED: {"kind": "code", "runs": 2},
    EventKind.JOB_STARTED: {},
    EventKind.JOB_CANCEL_REQUESTED: {},
    EventKind.JOB_FINISHED: {"state": "completed", "outcome": "partial"},
    EventKind.RUN_DISPATCHED: {"dispatch": 1},
    EventKind.RUN_STARTED: {"agent": "agent-1"},
    EventKind.RUN_REQUEUED: {"reason": "retry", "error": "the model is away"},
    EventKind.RUN_WAITING: {"summary": "Which one?"},
    EventKind.RUN_MESSAGE: {"number": 2, "text": "go on", "interrupt": True},
    EventKind.RUN_PUBLISHING: {"changesetId": CHANGESET},
    EventKind.RUN_FINISHED: {"state": "failed", "exitReason": "lost", "error": "why"},
    EventKind.TURN_RESET: {"turn": 3, "reason": "stream broke"},
    EventKind.DELTA: {"turn": 3, "type": "text", "text": "hel", "block": 1},
    EventKind.USAGE: {
        "turn": 3,
        "model": "a-model",
        "tokens": {"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokens": 3, "cacheCreationInputTokens": 4},
        "costUsd": 0.25,
        "runCostUsd": 1.5,
        "isUnpriced": True,
    },
    EventKind.TESTS_STARTED: {"command": "make test", "fixAttempt": 1},
    EventKind.TESTS_ENDED: {"passed": True, "exitCode": 2, "timedOut": True, "durationMs": 9, "output": "1 failed"},
    EventKind.CHANGESET_STORED: {
        "changesetId": CHANGESET,
        "commitSha": "b" * 40,
        "filesChanged": 1,
        "insertions": 2,
        "deletions": 0,
    },
    EventKind.CHANGESET_PUSHED: {"changesetId": CHANGESET, "commitSha": "b" * 40, "branch": "x", "url": "/c/1"},
    EventKind.CHANGESET_FAILED: {"changesetId": CHANGESET, "error": "rejected"},
    EventKind.CHANGESET_UPDATED: {
        "changesetId": CHANGESET,
        "state": "open",
        "checks": "passing",
        "review": "approved",
        "mergeable": "yes",
        "url": "https://forge.example/pull/1",
        "supersededBy": CHANGESET,
    },
    EventKind.PROGRESS: {"phase": "Receiving objects", "percent": 42},
}
TIME = datetime(2026, 1, 31, 14, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))


def encoded(
    kind: EventKind, data: dict[str, Any], *, number: int = 7, run_id: str = "r-1", most_bytes: int | None = None
) -> bytes:
    return encode_event(
        event_id="e-1",
        job_id="j-1",
        run_id=run_id,
        number=number,
        attempt=2,
        kind=kind,
        time=TIME,
        data=data,
        most_bytes=most_bytes,
    )


def test_the_kinds_are_the_payloads_of_the_message() -> None:
    payloads = {field.json_name for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields}

    assert {payload_name(kind) for kind in EventKind} == payloads


@pytest.mark.parametrize("kind", EventKind)
def test_what_is_written_decodes_to_its_payload(kind: EventKind) -> None:
    event = json_format.Parse(encoded(kind, PAYLOADS[kind]), Event())

    payload = event.WhichOneof("payload")
    assert payload == kind.value.replace(".", "_")
    assert event.kind == kind.value
    assert (event.id, event.job_id, event.run_id, event.number, event.attempt) == ("e-1", "j-1", "r-1", 7, 2)
    assert event.time.ToDatetime(UTC) == TIME
    assert json_format.MessageToDict(getattr(event, payload), always_print_fields_with_no_presence=True) == (
        json_format.MessageToDict(type(getattr(event, payload))(), always_print_fields_with_no_presence=True)
        | PAYLOADS[kind]
    )


@pytest.mark.parametrize("number", [7, 0])
@pytest.mark.parametrize("kind", EventKind)
def test_of_an_event_that_is_too_large_a_part_is_sent_that_says_where_the_rest_is(kind: EventKind, number: int) -> None:
    # Characters of which JSON makes six bytes, in each text; and a list that goes on and on where there may be one.
    data = {name: "\x01" * 600_000 if isinstance(value, str) else value for name, value in PAYLOADS[kind].items()}
    if kind is EventKind.DELTA:
        data["more"] = [{"type": "text", "text": "x", "block": 1}] * 50_000
    whole = encoded(kind, data, number=number)

    sent = encoded(kind, data, number=number, most_bytes=MOST_BYTES)

    event = json_format.Parse(sent, Event())
    assert (event.id, event.kind, event.number) == ("e-1", kind.value, number)
    assert event.WhichOneof("payload") == kind.value.replace(".", "_")
    if len(whole) <= MOST_BYTES:
        assert (sent, event.left_out) == (whole, "")
        return
    assert len(sent) < 50_000
    small = {name for name, value in data.items() if not isinstance(value, str | list)}
    told = json_format.MessageToDict(event)[payload_name(kind)]
    assert {name: told.get(name, 0) for name in small} == {name: data[name] for name in small}
    where = "`Last-Event-ID: 6:-:0`" if number else "the run's transcript"
    assert where in event.left_out


def test_an_event_that_fits_exactly_is_sent_whole() -> None:
    event = LoggedEvent(UUID(int=1), UUID(int=2), None, 1, 0, EventKind.LOG, {"message": "x" * 3_000}, TIME)
    size = len(event.encoded())
    assert event.encoded(most_bytes=size) == event.encoded()
    assert b"leftOut" in event.encoded(most_bytes=size - 1)


def test_defaults_are_left_out_but_the_payload_is_there() -> None:
    event = json_format.Parse(encoded(EventKind.JOB_STARTED, {}, number=0, run_id=""), Event())

    assert (event.number, event.run_id) == (0, "")
    assert event.WhichOneof("payload") == "job_started"
    assert b"runId" not in encoded(EventKind.JOB_STARTED, {}, run_id="")
