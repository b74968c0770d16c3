"""A dialect as it is served: in its folder of the gateway and, where it has one, at the root of a port of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

from aiohttp import web
from aiohttp.typedefs import Middleware

from services.gateway.auth import CLIENT
from services.gateway.context import GATEWAY, Gateway
from services.gateway.dialects.dialect import Dialect
from services.gateway.dialects.errors import errors_of
from services.gateway.dialects.openapi import document
from services.gateway.dialects.tenant import Tenant
from services.gateway.operations import Operation
from services.gateway.tracing import Handler, add_headers, traced

DOCUMENT_PATH = "/openapi.json"
ROOT = web.AppKey("root", str)
"""Of the dialect's paths, without a slash at its end: empty at the root of a port."""


class Served:
    """One dialect over the use cases of this process."""

    def __init__(self, dialect: Dialect, gateway: Gateway) -> None:
        self.dialect = dialect
        self.tenant = Tenant(dialect.name, dialect.limits, gateway.clients, gateway.commands)
        self._gateway = gateway

    def mount(self, app: web.Application) -> None:
        """Serve it in its folder of ``app``, which traces requests and adds headers already."""
        root = f"/{self.dialect.name}"
        app.add_subapp(root, self._filled(web.Application(middlewares=self._around(root)), root))

    def alone(self, *, max_body_bytes: int) -> web.Application:
        """An application that serves it at the root, and nothing else."""
        app = web.Application(middlewares=[traced, *self._around("")], client_max_size=max_body_bytes)
        app.on_response_prepare.append(add_headers)
        return self._filled(app, "")

    def _around(self, root: str) -> list[Middleware]:
        return [*self.dialect.middlewares, errors_of(self.dialect, root)]

    def _filled(self, app: web.Application, root: str) -> web.Application:
        app[GATEWAY] = self._gateway
        app[ROOT] = root
        for method, path, handler in self._routes(cache(partial(document, self.dialect, root))):
            if method == "GET":
                app.router.add_get(path, handler, allow_head=True)
            else:
                app.router.add_route(method, path, handler)
        return app

    def _routes(self, described: Callable[[], bytes]) -> Iterator[tuple[str, str, Handler]]:
        async def openapi(_: web.Request) -> web.StreamResponse:
            return web.Response(body=described(), content_type="application/json")

        yield "GET", DOCUMENT_PATH, openapi
        for operation in self.dialect.operations:
            yield operation.method, operation.path, self._handler(operation)
        for path, page in self.dialect.pages.items():
            yield "GET", path, self._as_client(page)

    def _handler(self, operation: Operation) -> Handler:
        handler = self._as_client(operation.handler)
        if operation.is_public:
            return handler

        async def guarded(request: web.Request) -> web.StreamResponse:
            self.dialect.admit(request)
            return await handler(request)

        return guarded

    def _as_client(self, handler: Handler) -> Handler:
        """``handler`` with the dialect's client as `request[CLIENT]`."""

        async def acting(request: web.Request) -> web.StreamResponse:
            request[CLIENT] = await self.tenant.client()
            return await handler(request)

        return acting
