"""HTTP with one Worker API: its address, the key, deadlines, and answers made into errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from quarterdeck.transport import MAX_PROBLEM_CHARACTERS, asked_wait_seconds, error_of, is_loopback
from quarterdeck.worker_errors import Code, WorkerError

_Model = TypeVar("_Model", bound=BaseModel)


class _Refusal(BaseModel):
    error: str
    message: str


class Requests:
    """One connection pool. ``timeout``: the longest wait for an answer, and between two pieces of it.

    ``transport``: in place of the network. Raises WorkerError where the address cannot be used.
    """

    def __init__(
        self, base_url: str, api_key: str | None, timeout: timedelta, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self.address = _checked(base_url)
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=timeout.total_seconds(),
            transport=transport,
            trust_env=not is_loopback(self.address),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(
        self,
        model: type[_Model],
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        also: Collection[int] = (),
    ) -> _Model:
        """The body of an answer with a 2xx or one of the statuses in ``also``. Raises WorkerError."""
        response = await self._send(method, path, params=params)
        try:
            await self._read(response, also)
            return model.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise WorkerError(
                Code.PROTOCOL_ERROR,
                f"{self.address}{path} answered what is no {model.__name__} ({where}: {first['msg']}).",
                status=response.status_code,
            ) from error
        finally:
            await response.aclose()

    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """An answer with a 2xx whose body is still to come; the caller closes it. Raises WorkerError."""
        response = await self._send(method, path, params=params, body=body, headers=headers)
        if not response.is_success:
            try:
                await self._read(response)
            finally:
                await response.aclose()
        return response

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        request = self._http.build_request(method, self.address + path, params=params, json=body, headers=headers)
        try:
            return await self._http.send(request, stream=True)
        except httpx.RequestError as error:
            raise self.broken(error) from error

    async def _read(self, response: httpx.Response, also: Collection[int] = ()) -> None:
        """Raises what the status says."""
        try:
            await response.aread()
        except httpx.RequestError as error:
            raise self.broken(error) from error
        if not response.is_success and response.status_code not in also:
            raise _refusal(response)

    def broken(self, error: Exception) -> WorkerError:
        words = str(error) or type(error).__name__
        return WorkerError(Code.UNAVAILABLE, f"The connection to {self.address} broke: {words}")


def _refusal(response: httpx.Response) -> WorkerError:
    status, pause = response.status_code, None
    if "Retry-After" in response.headers:
        pause = asked_wait_seconds(error_of(response))
    try:
        told = _Refusal.model_validate_json(response.content)
    except ValidationError:  # a proxy's page, say
        code = Code.UNAVAILABLE if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Code.PROTOCOL_ERROR
        words = response.text[:MAX_PROBLEM_CHARACTERS].strip() or response.reason_phrase
        return WorkerError(code, f"HTTP {status}: {words}", status=status, retry_after_seconds=pause)
    return WorkerError(told.error, told.message, status=status, retry_after_seconds=pause)


def _checked(address: str) -> str:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query or url.fragment:
        raise WorkerError(
            Code.INVALID_ARGUMENT,
            "base_url must be an http or https URL such as http://127.0.0.1:8787, without user, query and fragment.",
        )
    return str(url).rstrip("/")
