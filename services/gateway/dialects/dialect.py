"""What a dialect is: a published API's operations and errors, who may use it, and the client that it acts as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from services.contracts.rest import Problem
from services.gateway.operations import Operation
from services.gateway.query import Query
from services.gateway.tracing import Handler
from services.jobs.clients import OwnLimits

Admit: TypeAlias = Callable[[web.Request], None]
"""Raises ``ProblemError`` for a request that may not be served, such as one without a key."""
Render: TypeAlias = Callable[[Problem], BaseModel]


class LooseQuery(Query):
    """Parameters of which a published API ignores those that it does not know."""

    model_config = ConfigDict(extra="ignore")


class FormQuery(LooseQuery):
    """Parameters as forms send them, too: one that is blank was not given."""

    @model_validator(mode="before")
    @classmethod
    def _drop_blanks(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if not _is_blank(value)}


def capped(most: int) -> AfterValidator:
    """For a number of which more than ``most`` may be asked for, but is not given."""
    return AfterValidator(lambda value: min(value, most))


def _is_blank(value: str | list[str]) -> bool:
    return not any(word.strip() for word in ([value] if isinstance(value, str) else value))


@dataclass(frozen=True)
class OwnPort:
    """Where a dialect is served at the root, too. ``variable``: the setting that says so, for the words of errors."""

    number: int
    variable: str

    @classmethod
    def of(cls, number: int | None, variable: str) -> OwnPort | None:
        """None: it has none."""
        return None if number is None else cls(number, variable)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """``name``: of its client, and of the folder that its paths are in (`/codebot/…`)."""

    name: str
    title: str
    description: str
    operations: tuple[Operation, ...]
    """Those that are not public are served to whom ``admit`` lets in."""
    admit: Admit
    security: Mapping[str, Mapping[str, str]]
    """The ways that ``admit`` takes, by name, as OpenAPI describes them; a request needs one of them."""
    error: type[BaseModel]
    """The shape of every error:"""
    render: Render
    limits: OwnLimits
    statuses: Mapping[int, int] = field(default_factory=dict)
    """What the document says instead of a status: an API that knows no 422 says 400. ``render`` sees the new one."""
    middlewares: tuple[Middleware, ...] = ()
    """Around everything, errors too, the outermost first."""
    port: OwnPort | None = None
    """None: it has no port of its own."""
    pages: Mapping[str, Handler] = field(default_factory=dict)
    """What people look at in a browser, by path; they admit whom they will, and are not in the document."""
