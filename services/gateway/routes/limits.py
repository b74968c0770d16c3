"""Limits: how many runs may hold a slot at once, read and replaced while everything runs."""

from __future__ import annotations

from aiohttp import web

from services.contracts.limits import Limits
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import NoQuery, read_query


async def get_limits(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    return json_response(request, await gateway_of(request).limits.read(request[CLIENT]))


async def put_limits(request: web.Request) -> web.StreamResponse:
    """In force for what is admitted from now on; what runs is let run."""
    read_query(request, NoQuery)
    gateway = gateway_of(request)
    wanted, _ = await read_body(request, Limits)
    limits = await gateway.limits.replace(request[CLIENT], wanted)
    gateway.commands.limits_changed()
    return json_response(request, limits)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/limits",
        name="getLimits",
        summary="Get the limits: all for an operator, else the fleet's, the queues' and one's own",
        handler=get_limits,
        answers=(Answer(200, "the limits", Limits),),
    ),
    Operation(
        method="PUT",
        path="/v1/limits",
        name="putLimits",
        summary="Replace all limits; for operators",
        handler=put_limits,
        body=Limits,
        answers=(Answer(200, "the limits that are in force now", Limits),),
    ),
)
