"""Write docs/asyncapi.yaml from the events' protobuf and its comments; with --check, say whether it is current."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import yaml
from asyncapi_examples import EXAMPLES
from asyncapi_schemas import Json, Schemas, described, reference

from services.contracts.subjects import CLIENT_HEADER, SEQUENCE_HEADER
from services.contracts.words import EventKind
from services.jobs.eventlog import encode_event, payload_name

TARGET = Path(__file__).resolve().parent / "asyncapi.yaml"
SOURCE = "quarterdeck/v1/events.proto"
HEADING = "# Made from proto/quarterdeck/v1/events.proto by `make docs`; do not edit.\n"

DELTAS = {EventKind.DELTA, EventKind.PROGRESS, EventKind.TURN_RESET}
"""Never the only record of anything: they have no number and no headers."""


def payload_messages(schemas: Schemas) -> dict[EventKind, str]:
    """Which protobuf message is the payload of which kind. Raises ValueError where words and protobuf differ."""
    found = {
        f.json_name: f.type_name.rpartition(".")[2] for f in schemas.message("Event").field if f.HasField("oneof_index")
    }
    wanted = {payload_name(kind): kind for kind in EventKind}
    if found.keys() != wanted.keys():
        raise ValueError(f"kinds and payloads differ: {sorted(found.keys() ^ wanted.keys())}")
    return {kind: found[name] for name, kind in wanted.items()}


def event_schema(schemas: Schemas, kind: EventKind, message: str) -> Json:
    name = payload_name(kind)
    properties = schemas.properties("Event")
    properties["kind"] = {"type": "string", "const": kind.value}
    if kind in DELTAS:
        del properties["number"]
    durable = [] if kind in DELTAS else ["number"]
    return {
        "type": "object",
        "required": ["id", "jobId", *durable, "kind", "time", name],
        "properties": {**properties, name: reference("schemas", message)},
    }


def headers_schema() -> Json:
    return {
        "type": "object",
        "required": ["Nats-Msg-Id", SEQUENCE_HEADER, CLIENT_HEADER],
        "properties": {
            "Nats-Msg-Id": {"type": "string", "description": "The event's id."},
            SEQUENCE_HEADER: {
                "type": "string",
                "pattern": "^[1-9][0-9]*$",
                "description": "The event's place over all jobs, in the order of publication: 1, 2, 3 … without holes. "
                "Drop what is not above the last one you took.",
            },
            CLIENT_HEADER: {"type": "string", "format": "uuid", "description": "The client whose job it is."},
        },
    }


def example(kind: EventKind) -> Json:
    """An event as the services encode it, with its headers where it has any."""
    identity, job, run = (f"0198c3a0-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))
    of_job = kind.startswith("job.")
    is_delta = kind in DELTAS
    encoded = encode_event(
        event_id=identity,
        job_id=job,
        run_id="" if of_job else run,
        number=0 if is_delta else 7,
        attempt=0 if of_job else 1,
        kind=kind,
        time=datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC),
        data=EXAMPLES[kind],
    )
    payload = {"payload": json.loads(encoded)}
    headers = {"Nats-Msg-Id": identity, SEQUENCE_HEADER: "1042", CLIENT_HEADER: "0198c3a0-0000-7000-8000-000000000004"}
    return payload if is_delta else {"headers": headers, **payload}


def channel(kind: EventKind) -> Json:
    run = "_" if kind.startswith("job.") else "{run}"
    parameters = {"job": {"description": "The job's id."}}
    if run != "_":
        parameters["run"] = {"description": "The run's id; `_` for an event of the job as a whole."}
    name = payload_name(kind)
    return {
        "address": f"qd.evt.{{job}}.{run}.{kind.replace('.', '_')}",
        "messages": {name: reference("messages", name)},
        "parameters": parameters,
    }


def message_object(schemas: Schemas, kind: EventKind, payload: str) -> Json:
    comment = schemas.comment(payload)
    return {
        "name": kind.value,
        **({"summary": comment} if comment else {}),
        "contentType": "application/json",
        **({} if kind in DELTAS else {"headers": reference("schemas", "headers")}),
        "payload": event_schema(schemas, kind, payload),
        "examples": [example(kind)],
    }


def document() -> Json:
    schemas = Schemas(described(SOURCE))
    payloads = payload_messages(schemas)
    names = {kind: payload_name(kind) for kind in payloads}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Quarterdeck's events",
            "version": "v1",
            "description": "What the JetStream stream `EVENTS` has: the proto3 JSON form of `quarterdeck.v1.Event`. "
            "A field with its default value is left out; fields may be added. docs/events.md tells how to subscribe.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "security": [reference("securitySchemes", "subscriber")],
            }
        },
        "channels": {name: channel(kind) for kind, name in names.items()},
        "operations": {name: {"action": "send", "channel": {"$ref": f"#/channels/{name}"}} for name in names.values()},
        "components": {
            "securitySchemes": {
                "subscriber": {"type": "userPassword", "description": "The user `subscriber`: read-only."}
            },
            "messages": {names[kind]: message_object(schemas, kind, payload) for kind, payload in payloads.items()},
            "schemas": {
                "headers": headers_schema(),
                **{name: schemas.schema(name) for name in schemas.names() if name != "Event"},
            },
        },
    }


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  anchors would not be what people write
        return True


def page() -> str:
    return HEADING + yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)


def main() -> int:
    if "--check" in sys.argv[1:]:
        stale = not TARGET.exists() or TARGET.read_text() != page()
        if stale:
            print(f"stale: docs/{TARGET.name}; run `make docs`", file=sys.stderr)
        return int(stale)
    TARGET.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
