"""What is sent of a durable event: it decodes as the protobuf `Event`, and its subject and headers say whose it is."""

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import orjson
import pytest
from google.protobuf import json_format

from services.contracts.v1.events_pb2 import Event
from services.contracts.words import EventKind
from services.jobs.eventlog import MOST_BYTES, payload_name
from services.runtime.jetstream import Outgoing
from services.runtime.postgres import Record
from services.scheduler.publication import message_of
from tests.unit.jobs.test_event_forms import PAYLOADS

EVENT, JOB, RUN, CLIENT = (str(UUID(int=n << 100 | n)) for n in (10, 11, 12, 13))
TIME = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
ODD = 'grün 🚢 "\\\x01\r\n\u2028日本'


def sent(
    kind: str,
    data: dict[str, Any],
    *,
    run_id: str | None = RUN,
    attempt: int = 2,
    time: datetime = TIME,
    client_id: str | None = CLIENT,
) -> Outgoing:
    """As PostgreSQL has the event: with spaces in its JSON, and null where it is about no run."""
    text = orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()
    row = (EVENT, JOB, run_id, 7, attempt, kind, text, time, client_id, 1_234)
    return message_of(cast("Record", row), most_bytes=MOST_BYTES)


def payload_of(message: Outgoing, kind: EventKind) -> dict[str, Any]:
    """What the message says, with what the protobuf leaves out since it is the default."""
    event = json_format.Parse(message.data, Event())
    assert event.WhichOneof("payload") == kind.value.replace(".", "_")
    payload = getattr(event, kind.value.replace(".", "_"))
    whole: dict[str, Any] = json_format.MessageToDict(payload, always_print_fields_with_no_presence=True)
    return whole


def with_texts(data: dict[str, Any], text: str) -> dict[str, Any]:
    return {name: text if isinstance(value, str) else value for name, value in data.items()}


@pytest.mark.parametrize("run_id", [RUN, None])
@pytest.mark.parametrize("text", [None, "", ODD, "x" * 3_000])
@pytest.mark.parametrize("kind", EventKind)
def test_an_event_of_any_kind_decodes_to_what_happened(kind: EventKind, text: str | None, run_id: str | None) -> None:
    data = PAYLOADS[kind] if text is None else with_texts(PAYLOADS[kind], text)

    message = sent(kind.value, data, run_id=run_id, attempt=2 if run_id else 0)

    event = json_format.Parse(message.data, Event())
    assert (event.id, event.job_id, event.run_id) == (EVENT, JOB, run_id or "")
    assert (event.number, event.attempt, event.kind) == (7, 2 if run_id else 0, kind.value)
    assert (event.time.ToDatetime(UTC), event.left_out) == (TIME, "")
    assert payload_of(message, kind) == payload_of(sent(kind.value, {}), kind) | data
    word = kind.value.replace(".", "_")
    assert message.subject == f"qd.evt.{JOB}.{run_id or '_'}.{word}"
    assert message.message_id == EVENT
    assert message.headers == {"Qd-Sequence": "1234", "Qd-Client": CLIENT}


@pytest.mark.parametrize("kind", EventKind)
def test_nothing_is_sent_that_says_nothing(kind: EventKind) -> None:
    of_job = orjson.loads(sent(kind.value, {}, run_id=None, attempt=0).data)

    assert list(of_job) == ["id", "jobId", "number", "kind", "time", payload_name(kind)]
    assert of_job[payload_name(kind)] == {}
    assert b" " not in sent(kind.value, {"nested": [{"a": 1}, [], None]}).data


@pytest.mark.parametrize("kind", EventKind)
def test_of_what_is_too_large_a_part_is_sent(kind: EventKind) -> None:
    data = with_texts(PAYLOADS[kind], "\x01" * 600_000)
    message = sent(kind.value, data)

    assert len(message.data) <= MOST_BYTES
    told = payload_of(message, kind)
    small = {name: value for name, value in data.items() if not isinstance(value, str)}
    assert {name: told[name] for name in small} == small
    event = json_format.Parse(message.data, Event())
    assert (f"/v1/jobs/{JOB}/events" in event.left_out) == (small != data)
    assert message.subject.startswith(f"qd.evt.{JOB}.{RUN}.")


@pytest.mark.parametrize(("microsecond", "told"), [(0, ""), (1, ".000001"), (250_000, ".250000")])
def test_the_time_is_in_utc(microsecond: int, told: str) -> None:
    event = orjson.loads(sent("log", {}, time=TIME.replace(microsecond=microsecond)).data)
    assert event["time"] == f"2026-01-31T12:00:00{told}Z"


def test_a_kind_that_is_none_is_not_sent() -> None:
    with pytest.raises(ValueError, match=r"job\.exploded"):
        sent("job.exploded", {})


def test_whose_an_event_was_may_be_forgotten() -> None:
    assert sent("log", {}, client_id=None).headers["Qd-Client"] == "None"
