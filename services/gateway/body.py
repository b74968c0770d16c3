"""The one way in for request bodies: size, type, encoding and JSON are checked here, then the model speaks."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

import orjson
from aiohttp import ClientPayloadError, web
from pydantic import BaseModel, ValidationError

from services.contracts.rest import ProblemField
from services.gateway.fields import MOST_FIELDS, path_of, refused
from services.gateway.problems import ProblemError

BodyModel = TypeVar("BodyModel", bound=BaseModel)

READ_SECONDS = 30.0
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE = "must not contain lone surrogates"


async def read_body(request: web.Request, model: type[BodyModel]) -> tuple[BodyModel, bytes]:
    """The body as ``model``, and its exact bytes. Raises ``ProblemError``: 400, 408, 413 or 415."""
    _check_type(request)
    body = await read_bytes(request)
    _check_json(body)
    try:
        return model.model_validate_json(body), body
    except ValidationError as error:
        raise refused(error) from error


def _check_type(request: web.Request) -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProblemError(415, "Content-Encoding: compressed bodies are not taken; send the JSON as it is")
    media_type = request.content_type.lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise ProblemError(415, f"Content-Type: must be application/json, not {media_type}")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise ProblemError(415, "Content-Type: JSON is sent as UTF-8")


async def read_bytes(request: web.Request) -> bytes:
    """The body as it came. Raises ``ProblemError``: 400, 408 or 413."""
    try:
        if request.content.is_eof():
            return await request.read()  # most bodies are here with their head
        async with asyncio.timeout(READ_SECONDS):
            return await request.read()
    except TimeoutError as error:
        raise ProblemError(408, f"the body did not arrive within {READ_SECONDS:g} s") from error
    except (ClientPayloadError, web.RequestPayloadError, ConnectionError) as error:
        raise ProblemError(400, "the body broke off before its end, or is not framed as its headers say") from error


def _check_json(body: bytes) -> None:
    """Strict: orjson refuses NaN, lone surrogates, and what is nested deeper than 1,024."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "surrogate" in error.msg and (fields := _surrogates(body)):
            raise ProblemError(400, f"{fields[0].field}: {_SURROGATE}", errors=fields) from error
        raise _no_json(_complaint(body, error)) from error
    if not isinstance(parsed, dict):
        raise _no_json("must be a JSON object: `{…}`")


def _no_json(message: str) -> ProblemError:
    return ProblemError(400, f"the body {message}", errors=[ProblemField(field="body", message=message)])


def _complaint(body: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        body.decode()
    except UnicodeDecodeError as encoding:
        return f"is not valid UTF-8 at byte {encoding.start}"
    return f"is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"


def _surrogates(body: bytes) -> list[ProblemField]:
    """The fields that hold lone surrogates, at most 50; none where the body cannot be read at all."""
    try:
        lenient = json.loads(body.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return []
    found = (path for path, text in _strings(lenient) if _LONE_SURROGATE.search(text))
    return [ProblemField(field=path_of(path), message=_SURROGATE) for path in islice(found, MOST_FIELDS)]


def _strings(value: Any) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Every string of a JSON document with its path, the names of its fields among them."""
    left: list[tuple[tuple[int | str, ...], Any]] = [((), value)]
    while left:
        path, each = left.pop()
        if isinstance(each, str):
            yield path, each
        elif isinstance(each, dict):
            for key, item in each.items():
                yield (*path, key), key
                left.append(((*path, key), item))
        elif isinstance(each, list):
            left += [((*path, index), item) for index, item in enumerate(each)]
