"""Between protobuf messages and the models of the REST API, which validate both surfaces' requests alike."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, ValidationError

from services.gateway.fields import refused
from services.gateway.problems import FieldProblemError
from services.gateway.routes.jobs import MAX_KEY_CHARACTERS
from services.jobs.errors import NotFoundError

Model = TypeVar("Model", bound=BaseModel)
Reply = TypeVar("Reply", bound=Message)

_SHOWN_CHARACTERS = 100


def read(request: Message, model: type[Model], *, without: Collection[str] = ()) -> Model:
    """``request`` as the REST model that it mirrors, but for its fields ``without``.

    Raises ``ProblemError`` that names each wrong field as REST does, by its JSON name.
    """
    try:
        return model.model_validate(_document(request, without=without))
    except ValidationError as error:
        raise refused(error) from error


def reply(model: BaseModel, kind: type[Reply]) -> Reply:
    """``model`` as the message that mirrors it; what is null stays unset."""
    return kind(**_plain(model.model_dump()))


def _plain(value: Any) -> Any:
    """Ids as text; all else a message takes as Python has it, five times faster than from its JSON form."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, UUID) else value


def read_id(text: str, what: str) -> UUID:
    """An id; what is none is of nothing. Raises ``NotFoundError``."""
    try:
        found = UUID(text)
    except ValueError:
        found = None
    # Other spellings that Python takes are refused over HTTP too.
    if found is None or str(found) != text.lower():
        raise NotFoundError(what, text[:_SHOWN_CHARACTERS])
    return found


def read_key(key: str | None) -> str | None:
    """An idempotency key by the rules of the header `Idempotency-Key`; None: there is none."""
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARACTERS and all(" " <= char <= "~" for char in key)):
        raise FieldProblemError("idempotencyKey", f"must have 1 to {MAX_KEY_CHARACTERS} printable ASCII characters")
    return key


def fingerprint(request: Message) -> bytes:
    """What an idempotency key stands for: the request without the key, the same whatever client encoded it."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("idempotency_key")
    return request.DESCRIPTOR.full_name.encode() + b"\n" + bare.SerializeToString(deterministic=True)


def _document(message: Message, path: str = "", without: Collection[str] = ()) -> dict[str, Any]:
    return {
        field.json_name: _value(value, field, f"{path}{field.json_name}")
        for field, value in message.ListFields()
        if field.name not in without
    }


def _value(value: Any, field: FieldDescriptor, path: str) -> Any:
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)  # of scalars; a map is told as a repeated entry, and reads as a mapping
    if field.is_repeated:
        return [_single(item, f"{path}[{index}]") for index, item in enumerate(value)]
    return _single(value, path)


def _single(value: Any, path: str) -> Any:
    if isinstance(value, Timestamp):
        return _instant(value, path)
    return _document(value, f"{path}.") if isinstance(value, Message) else value


def _instant(value: Timestamp, path: str) -> datetime:
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise FieldProblemError(path, "must be an instant in the years 1 to 9999, with nanos below 1e9") from error
