"""What a model refused, field by field, in words that a caller can act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from services.contracts.model import FieldError
from services.contracts.rest import ProblemField
from services.contracts.text import storable
from services.gateway.problems import ProblemError

MOST_FIELDS = 50
_MOST_PATH_CHARACTERS = 200
_SHOWN_IN_DETAIL = 3

_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "is required",
    "string_type": lambda _: "must be a string",
    "int_type": lambda _: "must be an integer",
    "int_parsing": lambda _: "must be an integer",
    "int_from_float": lambda _: "must be an integer",
    "list_type": lambda _: "must be an array",
    "model_type": lambda _: "must be an object",
    "enum": lambda context: f"must be {context['expected']}",
    "string_too_long": lambda context: f"must have at most {context['max_length']} characters",
    "string_too_short": lambda context: _too_short(context["min_length"], "characters"),
    "too_long": lambda context: f"must have at most {context['max_length']} {_things(context)}",
    "too_short": lambda context: _too_short(context["min_length"], _things(context)),
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
    "timezone_aware": lambda _: "needs a time zone: `2026-01-31T12:00:00Z`",
    "uuid_parsing": lambda _: "must be a UUID",
}


def _things(context: Mapping[str, Any]) -> str:
    return "items" if context["field_type"] == "List" else "characters"


def _too_short(least: int, things: str) -> str:
    return "must not be empty" if least == 1 else f"must have at least {least} {things}"


def refused(error: ValidationError, *, unknown: str = "is not a known field") -> ProblemError:
    """The 400 that names each field that ``error`` is about, 50 at most. ``unknown``: said of fields too many."""
    found = error.errors(include_url=False, include_input=False)
    fields = [_field(each, unknown) for each in found[:MOST_FIELDS]]
    shown = "; ".join(f"{field.field}: {field.message}" for field in fields[:_SHOWN_IN_DETAIL])
    more = len(found) - _SHOWN_IN_DETAIL
    return ProblemError(400, f"{shown}; and {more} more" if more > 0 else shown, errors=fields)


def _field(error: Mapping[str, Any], unknown: str) -> ProblemField:
    context: Mapping[str, Any] = error.get("ctx", {})
    cause = context.get("error")
    name = cause.field if isinstance(cause, FieldError) else path_of(error["loc"])
    message = unknown if error["type"] == "extra_forbidden" else _message(error, context)
    return ProblemField(field=name, message=message)


def _message(error: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    if words := _WORDS.get(error["type"]):
        return words(context)
    message = str(error["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("String should", "must")


def path_of(location: tuple[int | str, ...]) -> str:
    """`("repositories", 0, "baseRef")` → `repositories[0].baseRef`; the whole body is `body`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return storable(path.removeprefix("."))[:_MOST_PATH_CHARACTERS] or "body"
