"""Errors in a dialect's own shape: found as the native API finds them, so that none is missed, and then translated."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Middleware

from services.contracts.rest import Problem
from services.gateway.dialects.dialect import Dialect
from services.gateway.problems import ProblemError, problems
from services.gateway.tracing import Handler

_PROBLEM = "application/problem+json"
_REPLACED = ("Content-Type", "Content-Length")


def errors_of(dialect: Dialect, root: str) -> Middleware:
    """Answer whatever goes wrong as ``dialect`` says it. ``root``: of its paths, without a slash at its end."""

    async def found(request: web.Request, handler: Handler) -> web.StreamResponse:
        async def answered(request: web.Request) -> web.StreamResponse:
            error = request.match_info.http_exception
            if error is not None and error.status == HTTPStatus.NOT_FOUND:
                raise ProblemError(404, f"there is nothing at {request.path}; {root}/openapi.json lists what there is")
            return await handler(request)

        return await problems(request, answered)

    @web.middleware
    async def rendered(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await found(request, handler)
        if response.content_type != _PROBLEM or not isinstance(response, web.Response):
            return response
        assert isinstance(response.body, bytes)
        problem = Problem.model_validate_json(response.body)
        problem = problem.model_copy(update={"status": dialect.statuses.get(problem.status, problem.status)})
        return web.Response(
            status=problem.status,
            body=dialect.render(problem).model_dump_json(by_alias=True).encode(),
            content_type="application/json",
            headers={name: value for name, value in response.headers.items() if name not in _REPLACED},
        )

    return rendered
