"""The gateway about itself: its health, and the document that describes the API."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from services.contracts.rest import Health
from services.gateway.context import Gateway, gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.runtime.health import look


async def health(request: web.Request) -> web.StreamResponse:
    """200 while jobs can be taken, which needs Postgres alone; without NATS they wait, and it says `degraded`."""
    gateway = gateway_of(request)

    async def postgres() -> str:
        return await _postgres(gateway)

    found = await look("gateway", {"postgres": postgres, "nats": gateway.bus.check})
    return json_response(request, found, status=200 if found.checks["postgres"] == "ok" else 503)


async def _postgres(gateway: Gateway) -> str:
    answer = await gateway.database.check()
    if answer == "ok" and not gateway.authenticator.is_ready:
        return "reachable, but the API key is not stored yet"
    return answer


async def openapi(request: web.Request) -> web.StreamResponse:
    return web.Response(body=request.app[DOCUMENT](), content_type="application/json")


DOCUMENT: web.AppKey[Callable[[], bytes]] = web.AppKey("openapi")
"""Makes it, once: that takes longer than all else of a start, and few ever ask."""

OPERATIONS = (
    Operation(
        method="GET",
        path="/health",
        name="getHealth",
        summary="Whether jobs can be taken",
        handler=health,
        is_public=True,
        answers=(
            Answer(200, "they can; `degraded`: NATS is away, and they wait until it is back", Health),
            Answer(503, "Postgres is away", Health),
        ),
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="getDocument",
        summary="This document",
        handler=openapi,
        is_public=True,
        answers=(Answer(200, "OpenAPI 3.1"),),
    ),
)
