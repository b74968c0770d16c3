"""Budgets: what may be used over more than one job, read and replaced while everything runs."""

from __future__ import annotations

from aiohttp import web

from services.contracts import subjects
from services.contracts.spending import Budgets
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import NoQuery, read_query


async def get_budgets(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    return json_response(request, await gateway_of(request).budgets.read(request[CLIENT]))


async def put_budgets(request: web.Request) -> web.StreamResponse:
    """In force for the requests to models from now on; those under way go on."""
    read_query(request, NoQuery)
    wanted, _ = await read_body(request, Budgets)
    gateway = gateway_of(request)
    replaced = await gateway.budgets.replace(request[CLIENT], wanted)
    await gateway.bus.ring(subjects.BUDGETS, b"")
    return json_response(request, replaced)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/budgets",
        name="getBudgets",
        summary="Get the budgets: all for an operator, else the common ones and one's own",
        handler=get_budgets,
        answers=(Answer(200, "the budgets", Budgets),),
    ),
    Operation(
        method="PUT",
        path="/v1/budgets",
        name="putBudgets",
        summary="Replace all budgets; for operators",
        handler=put_budgets,
        body=Budgets,
        answers=(Answer(200, "the budgets that are in force now", Budgets),),
    ),
)
