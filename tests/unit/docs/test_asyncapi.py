"""docs/asyncapi.yaml says what the services send: subjects, payloads as the protobuf has them, headers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.contracts import subjects
from services.contracts.v1.events_pb2 import Event
from services.contracts.words import EventKind
from services.jobs.eventlog import payload_name

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
MESSAGES = DOCUMENT["components"]["messages"]
DELTAS = {EventKind.DELTA, EventKind.PROGRESS, EventKind.TURN_RESET}
VALUES = {
    FieldDescriptor.TYPE_STRING: "word",
    FieldDescriptor.TYPE_UINT32: 7,
    FieldDescriptor.TYPE_INT32: -7,
    FieldDescriptor.TYPE_DOUBLE: 0.5,
    FieldDescriptor.TYPE_BOOL: True,
}


def validator(schema: dict[str, Any]) -> Any:
    """Of a schema within the document, to which its references point."""
    return jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def filled(message: Message) -> None:
    """Set every field, but for those of `oneof`."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is None:
            if field.is_repeated:
                filled(getattr(message, field.name).add())
            elif field.message_type is None:
                setattr(message, field.name, VALUES[field.type])
            elif field.message_type.name == "Timestamp":
                getattr(message, field.name).GetCurrentTime()
            else:
                filled(getattr(message, field.name))


def full_event(kind: EventKind) -> dict[str, Any]:
    event = Event()
    filled(event)
    event.kind = kind.value
    payload = getattr(event, kind.value.replace(".", "_"))
    payload.SetInParent()
    filled(payload)
    found: dict[str, Any] = json_format.MessageToDict(event)
    if kind in DELTAS:
        del found["number"]
    return found


def undescribed(value: Any, schema: dict[str, Any]) -> list[str]:
    """The names in ``value`` that its schema does not have."""
    if reference := schema.get("$ref"):
        schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    if not isinstance(value, dict):
        return []
    properties = schema.get("properties", {})
    missing = [name for name in value if name not in properties]
    return missing + [
        each for name, part in value.items() if name in properties for each in undescribed(part, properties[name])
    ]


def test_the_document_is_current():
    command = [sys.executable, str(DOCS / "generate_asyncapi.py"), "--check"]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stale_document_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(DOCS))
    import generate_asyncapi  # noqa: PLC0415  found from here on only

    stale = tmp_path / "asyncapi.yaml"
    stale.write_text(generate_asyncapi.page().replace("Milliseconds", "Seconds"))
    monkeypatch.setattr(generate_asyncapi, "TARGET", stale)
    monkeypatch.setattr(sys, "argv", ["generate_asyncapi.py", "--check"])
    assert generate_asyncapi.main() == 1
    assert "make docs" in capsys.readouterr().err


@pytest.mark.parametrize("kind", EventKind)
def test_each_kind_has_the_subject_that_it_is_sent_on(kind):
    address = DOCUMENT["channels"][payload_name(kind)]["address"]
    run = "" if kind.startswith("job.") else "run-1"
    assert address.replace("{job}", "job-1").replace("{run}", "run-1") == subjects.event("job-1", run, kind)


@pytest.mark.parametrize("kind", EventKind)
def test_each_example_is_an_event_of_the_protobuf_and_of_its_schema(kind):
    message = MESSAGES[payload_name(kind)]
    (example,) = message["examples"]
    event = json_format.Parse(json.dumps(example["payload"]), Event())
    assert event.kind == message["name"] == kind.value
    assert event.WhichOneof("payload") == kind.value.replace(".", "_")
    assert json_format.MessageToDict(event) == example["payload"]
    validator(message["payload"]).validate(example["payload"])


@pytest.mark.parametrize("kind", EventKind)
def test_whatever_the_protobuf_can_say_is_described(kind):
    schema = MESSAGES[payload_name(kind)]["payload"]
    event = full_event(kind)
    validator(schema).validate(event)
    assert undescribed(event, schema) == []


@pytest.mark.parametrize("kind", EventKind)
def test_durable_events_alone_have_headers_and_a_number(kind):
    message = MESSAGES[payload_name(kind)]
    (example,) = message["examples"]
    assert ("headers" in message) == ("headers" in example) == ("number" in example["payload"]) == (kind not in DELTAS)
    if kind not in DELTAS:
        headers = DOCUMENT["components"]["schemas"]["headers"]
        validator(headers).validate(example["headers"])
        assert {subjects.SEQUENCE_HEADER, subjects.CLIENT_HEADER} < set(headers["required"])


@pytest.mark.parametrize(
    "change", [{"kind": "run.started"}, {"number": "7"}, {"turnEnded": {"turn": -1}}, {"time": 1}, {"jobId": None}]
)
def test_what_is_no_such_event_is_refused(change):
    message = MESSAGES["turnEnded"]
    (example,) = message["examples"]
    assert not validator(message["payload"]).is_valid(example["payload"] | change)


def test_comments_of_the_source_are_told():
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["TurnEnded"]["properties"]["durationMs"]["description"].startswith("Milliseconds from the request")
    assert MESSAGES["runWaiting"]["summary"].startswith("The run waits for its user")
