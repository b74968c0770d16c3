"""Query parameters and path parameters, checked as strictly as bodies."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from services.contracts.model import Name, Text
from services.contracts.repositories import (
    DEFAULT_FOUND,
    MAX_PATTERNS,
    Found,
    NamePattern,
    Owner,
    SearchWords,
    Topic,
)
from services.contracts.rest import FIRST_YEAR, LAST_YEAR, MAX_PAGE
from services.contracts.words import ChangesetState, JobKind, JobState
from services.gateway.fields import refused
from services.gateway.problems import FieldProblemError, ProblemError

DEFAULT_PAGE = 50
MAX_NAME_CURSOR = 1_100
"""A name of 200 characters of four bytes each, in base64."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def _refuse_distant(time: datetime) -> datetime:
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise ValueError(f"must be in the years {FIRST_YEAR} to {LAST_YEAR}")
    return time


Instant = Annotated[AwareDatetime, AfterValidator(_refuse_distant)]


class Query(BaseModel):
    """The parameters that an operation knows; any other is refused by name."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False, frozen=True, extra="forbid")

    repeatable: ClassVar[frozenset[str]] = frozenset()
    """Those that may come more than once, or with commas."""


QueryModel = TypeVar("QueryModel", bound=Query)


class NoQuery(Query):
    pass


class PageQuery(Query):
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = Field(DEFAULT_PAGE, description="most items of the page")
    cursor: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="`nextCursor` of the page before"
    )


class JobsQuery(PageQuery):
    repeatable = frozenset({"state"})

    state: list[JobState] | None = Field(None, description="any of these; repeat it, or separate them by commas")
    kind: JobKind | None = None
    name: Annotated[Text, Field(max_length=200)] | None = None
    repository: Annotated[Text, Field(max_length=2_000)] | None = Field(
        None, description="jobs with a run on exactly this repository, as it was given"
    )
    created_after: Instant | None = Field(None, description="RFC 3339, inclusive")
    created_before: Instant | None = Field(None, description="RFC 3339, exclusive")


class ChangesetsQuery(PageQuery):
    state: ChangesetState | None = None
    repository: Annotated[Text, Field(max_length=2_000)] | None = None
    job_id: UUID | None = None
    run_id: UUID | None = None


class NamedPageQuery(PageQuery):
    """Of a list in the order of names, of which its cursors are made."""

    cursor: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CURSOR)] | None = Field(
        None, description="`nextCursor` of the page before"
    )


class ClientsQuery(NamedPageQuery):
    name: Name | None = None


class RepositoriesQuery(NamedPageQuery):
    name: Name | None = Field(None, description="exactly this one; `*` stands for anything")


class DiscoverQuery(Query):
    repeatable = frozenset({"match", "topic"})

    owner: Owner | None = Field(None, description="a user or organisation; default: all that the server may see")
    match: Annotated[list[NamePattern], Field(max_length=MAX_PATTERNS)] = Field(
        default_factory=list, description="shell patterns over `owner/name`; any of these"
    )
    topic: Annotated[list[Topic], Field(max_length=MAX_PATTERNS)] = Field(
        default_factory=list, description="all of these"
    )
    q: SearchWords | None = Field(None, description="in the forge's own search language")
    archived: bool = Field(default=False, description="archived ones too")
    forks: bool = Field(default=False, description="forks too")
    limit: Found = Field(DEFAULT_FOUND, description="most of them")


class EventsQuery(Query):
    last_event_id: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="as the header `Last-Event-ID`, which goes before it"
    )


def read_query(request: web.Request, model: type[QueryModel]) -> QueryModel:
    """The request's parameters as ``model``; raises ``ProblemError`` that names each wrong one."""
    given: dict[str, Any] = {}
    for name in set(request.query):
        values = request.query.getall(name)
        if name in model.repeatable:
            given[name] = [word for value in values for word in value.split(",")]
        elif len(values) > 1:
            raise FieldProblemError(name[:200], "may be given only once")
        else:
            given[name] = values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        known = ", ".join(sorted(field.alias or name for name, field in model.model_fields.items()))
        raise refused(error, unknown=f"is not a known parameter; known are: {known or 'none'}") from error


def read_id(request: web.Request, what: str) -> UUID:
    """The path's id; one that is no UUID is of nothing: 404."""
    text = request.match_info["id"]
    if not _UUID.fullmatch(text):
        raise ProblemError(404, f"no {what} {text[:100]}")
    return UUID(text)
