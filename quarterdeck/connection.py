"""What every part of the client is made of: one connection pool, answers read as models, lists read page by page."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import date, timedelta
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from quarterdeck.address import resolve
from quarterdeck.errors import ProtocolError
from quarterdeck.transport import Transport
from services.contracts.rest import MAX_PAGE

PATIENCE = timedelta(seconds=30)
"""How long a request is tried again while the gateway cannot be reached or cannot serve."""

Id = UUID | str
_Model = TypeVar("_Model", bound=BaseModel)
_Item_co = TypeVar("_Item_co", bound=BaseModel, covariant=True)


class _Page(Protocol[_Item_co]):
    @property
    def items(self) -> Sequence[_Item_co]: ...

    @property
    def next_cursor(self) -> str | None: ...


class Connection:
    """One gateway and one key, used in ``async with``."""

    def __init__(
        self, address: str | None = None, api_key: str | None = None, *, patience: timedelta = PATIENCE
    ) -> None:
        endpoint = resolve(address, api_key)
        self.address = endpoint.address
        self._transport = Transport(endpoint.address, endpoint.api_key, patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._transport.close()

    async def _items(
        self,
        page_of: Callable[[httpx.Response], _Page[_Item_co]],
        path: str,
        filters: Mapping[str, str],
        limit: int | None,
    ) -> AsyncGenerator[_Item_co, None]:
        """The items of all pages; each page is fetched when the one before is used up."""
        left, cursor = limit, dict[str, str]()
        while left is None or left > 0:
            size = MAX_PAGE if left is None else min(left, MAX_PAGE)
            page = page_of(await self._transport.get(path, {**filters, **cursor, "limit": size}))
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            left = None if left is None else left - len(page.items)
            cursor = {"cursor": page.next_cursor}


def parsed(model: type[_Model], response: httpx.Response) -> _Model:
    """Raises ``ProtocolError`` where it is none."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ProtocolError(
            f"{response.request.url} answered what is no {model.__name__} ({where}: {first['msg']}). "
            "Is it a Quarterdeck gateway of this client's version?"
        ) from error


def segment(identifier: Id) -> str:
    """An id as a part of a path."""
    return quote(str(identifier), safe="")


def model_json(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def json_bytes(body: Mapping[str, Any]) -> bytes:
    """Escaped to ASCII: a lone surrogate is for the gateway to refuse, by the field's name."""
    return json.dumps(body).encode()


def filters_of(**values: str | UUID | date | bool | None) -> dict[str, str]:
    """As query parameters; what is None is not filtered by."""
    return {
        name: value.isoformat() if isinstance(value, date) else str(value)
        for name, value in values.items()
        if value is not None
    }
