"""What stands around every request of the Worker API: CORS, limits of rates, and the headers that every answer has.

A stream, which begins before this sees it, takes them by ``headers_of``; to all other answers they are added here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Middleware

from services.gateway.dialects.serving import ROOT
from services.gateway.dialects.worker.measures import NO_ROUTE, Measures
from services.gateway.dialects.worker.models import ErrorCode, error_response
from services.gateway.dialects.worker.origins import Origins
from services.gateway.dialects.worker.peers import address_of
from services.gateway.dialects.worker.rates import RateLimits, Standing
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.tracing import Handler

UNLIMITED_PATHS = ("/health", "/healthz", "/webhooks/github")
"""Whoever watches over a server asks often; GitHub sends much from few addresses, and what it is refused is lost."""


Unhealthy: TypeAlias = Callable[[web.Request], web.Response]
"""What `/health` answers where its handler was not reached: to find the API's client takes the database."""


class Surroundings:
    """Of one process: a client that spreads over several gateways has as many times its limit."""

    def __init__(self, settings: ServiceSettings, measures: Measures, unhealthy: Unhealthy | None) -> None:
        self._origins = Origins(settings.origins)
        self._rates = RateLimits(settings.rates)
        self._proxies = settings.proxies
        self._measures = measures
        self._unhealthy = unhealthy

    async def around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request[_PASSAGE] = passage = _Passage(self, self._standing(request))
        response = await self._answer(request, handler, passage.standing)
        if not passage.is_counted:
            response.headers.update(passage.headers(request, response.status))
        return response

    async def _answer(self, request: web.Request, handler: Handler, standing: Standing) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=self._origins.preflight(request.headers.get("Origin")))
        if not standing.is_allowed and _is_limited(request):
            return _refusal(standing)
        response = await handler(request)
        is_away = response.status == HTTPStatus.SERVICE_UNAVAILABLE and not _is_limited(request)
        if is_away and self._unhealthy is not None:
            return self._unhealthy(request)
        return response

    def _standing(self, request: web.Request) -> Standing:
        address = address_of(request.remote, request.headers.getall("X-Forwarded-For", []), self._proxies)
        return self._rates.take(address) if _is_limited(request) else self._rates.look(address)

    def headers(self, request: web.Request, standing: Standing) -> dict[str, str]:
        return {
            **self._origins.headers(request.headers.get("Origin")),
            "X-RateLimit-Limit": str(standing.limit),
            "X-RateLimit-Remaining": str(standing.remaining),
            "X-RateLimit-Reset": str(standing.reset),
        }

    def count(self, request: web.Request, status: int, *, milliseconds: float) -> int:
        return self._measures.count(_route_of(request), status, milliseconds=milliseconds)


class _Passage:
    """One request on its way through."""

    def __init__(self, surroundings: Surroundings, standing: Standing) -> None:
        self.standing = standing
        self.is_counted = False
        self._surroundings = surroundings
        self._begun = time.monotonic()

    def headers(self, request: web.Request, status: int) -> dict[str, str]:
        """Of the answer, which begins now and is counted."""
        self.is_counted = True
        milliseconds = (time.monotonic() - self._begun) * 1_000
        count = self._surroundings.count(request, status, milliseconds=milliseconds)
        return {
            **self._surroundings.headers(request, self.standing),
            "X-Response-Time": f"{round(milliseconds)}ms",
            "X-Request-Count": str(count),
        }


_PASSAGE = web.RequestKey("worker_passage", _Passage)


def middlewares(
    settings: ServiceSettings, measures: Measures, unhealthy: Unhealthy | None = None
) -> tuple[Middleware, ...]:
    """The outermost first. ``unhealthy``: None: such an answer is an error like any other."""
    surroundings = Surroundings(settings, measures, unhealthy)

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await surroundings.around(request, handler)

    return (around,)


def headers_of(request: web.Request, *, status: int = HTTPStatus.OK) -> dict[str, str]:
    """The headers of an answer that begins now; once a request."""
    return request[_PASSAGE].headers(request, status)


def _is_limited(request: web.Request) -> bool:
    return request.method != "OPTIONS" and request.path.removeprefix(request.app[ROOT]) not in UNLIMITED_PATHS


def _route_of(request: web.Request) -> str:
    """The route's template, without the folder that the API is in."""
    resource = request.match_info.route.resource
    return resource.canonical.removeprefix(request.app[ROOT]) if resource else NO_ROUTE


def _refusal(standing: Standing) -> web.Response:
    seconds = max(1, math.ceil(standing.reset - time.time()))
    message = f"too many requests: at most {standing.limit} in this window; try again in {seconds} s"
    code = ErrorCode.RATE_LIMIT_EXCEEDED
    return error_response(HTTPStatus.TOO_MANY_REQUESTS, code, message, headers={"Retry-After": str(seconds)})
