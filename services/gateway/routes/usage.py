"""Usage: the tokens and USD of a client by UTC day, and what its budgets leave for today."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

from aiohttp import web
from pydantic import BeforeValidator, Field, model_validator

from services.contracts.model import FieldError, Name
from services.contracts.rest import FIRST_YEAR, LAST_YEAR
from services.contracts.spending import UsageReport
from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import Query, read_query

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def _only_a_day(text: str) -> str:
    """Pydantic takes a time, and a count of seconds, for a day too."""
    if not _DAY.fullmatch(text) or not FIRST_YEAR <= int(text[:4]) <= LAST_YEAR:
        raise ValueError(f"must be a day such as `2026-01-31`, in the years {FIRST_YEAR} to {LAST_YEAR}")
    return text


Day = Annotated[date, BeforeValidator(_only_a_day)]


class UsageQuery(Query):
    first_day: Day | None = Field(
        None, alias="from", description="the first UTC day; default: so that there are 30 up to the last one"
    )
    last_day: Day | None = Field(None, alias="to", description="the last UTC day; default: today")
    client: Name | None = Field(None, description="for operators: the name of the client; default: one's own")

    @model_validator(mode="after")
    def _is_in_order(self) -> UsageQuery:
        if self.first_day is not None and self.last_day is not None and self.first_day > self.last_day:
            raise FieldError("from", "must not be after `to`")
        return self


async def get_usage(request: web.Request) -> web.StreamResponse:
    query = read_query(request, UsageQuery)
    report = await gateway_of(request).usage.report(
        request[CLIENT], of=query.client, first_day=query.first_day, last_day=query.last_day
    )
    return json_response(request, report)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/usage",
        name="getUsage",
        summary="Get what a client has used by day, and what its budgets leave for today",
        handler=get_usage,
        query=UsageQuery,
        answers=(Answer(200, "the usage", UsageReport),),
    ),
)
