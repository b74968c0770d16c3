"""What REST shows and asks, gRPC shows and asks too: each field, with its value.

What SubmitJob asks is tried whole in tests/integration/gateway/rpc/test_every_field.py.
"""

from datetime import UTC, datetime, timedelta
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from pydantic import BaseModel

from services.contracts import rest
from services.contracts.v1 import jobs_pb2
from services.gateway.query import JobsQuery, PageQuery
from services.gateway.rpc.messages import read, reply

MIRRORED: list[tuple[type[BaseModel], type[Message]]] = [
    (rest.Job, jobs_pb2.Job),
    (rest.JobPage, jobs_pb2.JobPage),
    (rest.Run, jobs_pb2.Run),
    (rest.RunPage, jobs_pb2.RunPage),
    (rest.Message, jobs_pb2.Message),
]
TIME = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
ID = "0198c3a0-0000-7000-8000-000000000005"
NOT_IN_THE_BODY = {"jobId", "idempotencyKey"}
BUDGET = {"usd": 0.5, "tokens": 7_000}
ASKED: list[tuple[type[BaseModel], type[Message], dict[str, Any]]] = [
    (
        rest.RetryRequest,
        jobs_pb2.RetryJobRequest,
        {
            "only": "failed",
            "resume": True,
            "options": {
                "model": "m",
                "maxTurns": 7,
                "runBudget": BUDGET,
                "jobBudget": BUDGET,
                "deadlineSeconds": 600,
            },
        },
    ),
    (rest.MessageRequest, jobs_pb2.SendMessageRequest, {"text": "go on", "runId": ID, "interrupt": True}),
    (rest.CompleteRequest, jobs_pb2.CompleteJobRequest, {"runId": ID}),
    (PageQuery, jobs_pb2.ListRunsRequest, {"limit": 7, "cursor": "c"}),
    (
        JobsQuery,
        jobs_pb2.ListJobsRequest,
        {
            "state": ["queued", "failed"],
            "kind": "task",
            "name": "n",
            "repository": "https://forge.example/one",
            "createdAfter": "2026-01-31T12:00:00Z",
            "createdBefore": "2026-02-28T12:00:00Z",
            "limit": 7,
            "cursor": "c",
        },
    ),
]
VALUES: dict[type, Any] = {
    str: "word",
    bool: True,
    int: 7,
    float: 0.25,
    UUID: UUID(int=5),
    datetime: TIME,
    timedelta: timedelta(seconds=7),
}


def example(kind: Any) -> Any:
    """A value of ``kind`` that no field has by default; of a model, with all of its fields."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Annotated, Union, UnionType):
        return example(next(each for each in arguments if each is not NoneType))
    if origin is list:
        return [example(arguments[0])]
    if origin is dict:
        return {"key": example(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_construct(**{name: example(field.annotation) for name, field in kind.model_fields.items()})
    return VALUES[kind] if kind in VALUES else list(kind)[-1]


@pytest.mark.parametrize(("model", "message"), MIRRORED, ids=[model.__name__ for model, _ in MIRRORED])
def test_an_answer_has_each_field_of_its_model(model: type[BaseModel], message: type[Message]) -> None:
    shown = example(model)

    told = MessageToDict(reply(shown, message))

    assert told == as_proto3_json(shown.model_dump(mode="json", by_alias=True), message.DESCRIPTOR)


@pytest.mark.parametrize(("model", "message", "asked"), ASKED, ids=[message.__name__ for _, message, _ in ASKED])
def test_a_request_is_read_with_each_of_its_fields(
    model: type[BaseModel], message: type[Message], asked: dict[str, Any]
) -> None:
    assert names(asked, message.DESCRIPTOR) == set()

    found = read(ParseDict(asked, message()), model)

    assert found.model_dump(mode="json", by_alias=True) == asked


def names(value: dict[str, Any], descriptor: Any) -> set[str]:
    """The fields of the message that ``value`` says nothing of."""
    missing = {field.json_name for field in descriptor.fields} - value.keys() - NOT_IN_THE_BODY
    for field in descriptor.fields:
        if isinstance(part := value.get(field.json_name), dict):
            missing |= names(part, field.message_type)
    return missing


def as_proto3_json(value: Any, descriptor: Any) -> Any:
    """REST's JSON, with what proto3 writes in another way."""
    if isinstance(value, list):
        return [as_proto3_json(item, descriptor) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {field.json_name: field for field in descriptor.fields}
    assert value.keys() == fields.keys()
    found = {}
    for name, item in value.items():
        field = fields[name]
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            found[name] = str(item) if field.type in (field.TYPE_INT64, field.TYPE_UINT64) else item
        elif field.message_type.full_name == "google.protobuf.Timestamp":
            found[name] = item.replace(".250000Z", ".250Z")
        else:
            found[name] = as_proto3_json(item, field.message_type)
    return found
