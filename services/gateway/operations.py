"""What the native API can do, declared once: the routes and the OpenAPI document are both made from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from services.gateway.auth import Authenticator, Handler, by_bearer
from services.gateway.query import NoQuery, Query


@dataclass(frozen=True)
class Answer:
    status: int
    description: str
    model: type[BaseModel] | None = None
    """None: the media type says it all."""
    media_type: str = "application/json"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """A request header that means something here."""

    name: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Operation:
    """``path``: `{id}` is a UUID unless ``parameters``, by name, describe it. ``is_public``: needs no API key."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    name: str
    summary: str
    handler: Handler
    answers: tuple[Answer, ...]
    query: type[Query] = NoQuery
    body: type[BaseModel] | None = None
    headers: tuple[Header, ...] = ()
    is_public: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What the text of a path parameter is."""


def register(app: web.Application, operations: Sequence[Operation], authenticator: Authenticator) -> None:
    """Route each operation; a GET answers HEAD too."""
    for operation in operations:
        handler = operation.handler if operation.is_public else by_bearer(authenticator, operation.handler)
        if operation.method == "GET":
            app.router.add_get(operation.path, handler, allow_head=True)
        else:
            app.router.add_route(operation.method, operation.path, handler)


@dataclass(frozen=True)
class _Origin:
    """The address that ``request`` came to: put together where a link begins with it, which few answers have."""

    request: web.Request

    def __str__(self) -> str:
        return str(self.request.url.origin())


def json_response(
    request: web.Request, model: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """``model`` as JSON; links to pages of ours begin with the address that ``request`` came to."""
    body = model.model_dump_json(by_alias=True, context={"origin": _Origin(request)}).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
