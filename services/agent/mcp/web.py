"""Speaks streamable HTTP to a server: only with the address that was checked, and only as much as is bounded."""

import functools
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.types import INTERNAL_ERROR

from services.agent.mcp.failures import EndedError
from services.agent.mcp.traffic import Reader, Traffic, Writer
from services.contracts.agents import HttpServer
from services.runtime.addresses import AddressError, IpAddress, checked_addresses, is_public

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
CONNECT_TIMEOUT = timedelta(seconds=10)
_LIMITS = httpx2.Limits(max_connections=16, max_keepalive_connections=2, keepalive_expiry=30)
# They say how a request is sent, which is not for settings to say.
_OURS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "upgrade"})


class HttpLink:
    """How to reach ``server``. ``read_timeout``: the longest silence within an answer."""

    def __init__(self, server: HttpServer, *, allow_private_addresses: bool, read_timeout: timedelta) -> None:
        self._server = server
        self._is_allowed = _any_address if allow_private_addresses else is_public
        self._timeout = httpx2.Timeout(CONNECT_TIMEOUT.total_seconds(), read=read_timeout.total_seconds())

    @asynccontextmanager
    async def streams(self, traffic: Traffic) -> AsyncIterator[tuple[Reader, Writer]]:
        """Streams to it; a connection is made with the first message. Raises ``EndedError``."""
        url, headers = _read(self._server.url), _checked(self._server.headers)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        try:
            addresses = await checked_addresses(
                url.raw_host.decode(), port, is_allowed=self._is_allowed, timeout=CONNECT_TIMEOUT
            )
        except AddressError as error:
            raise EndedError(f"cannot be connected to: {error}") from None
        transport = _CheckedTransport(url, addresses, traffic)
        async with (
            httpx2.AsyncClient(transport=transport, headers=headers, timeout=self._timeout, trust_env=False) as client,
            streamable_http_client(str(url), http_client=client, max_sse_event_size=MAX_RESPONSE_BYTES) as (
                incoming,
                outgoing,
            ),
        ):
            # What an answer may have is bounded below, so the size of each message within is no matter.
            messages = ((item, 0) async for item in incoming)
            yield Reader(messages, traffic), Writer(outgoing, traffic)


def _any_address(_: IpAddress) -> bool:
    return True


def _read(url: str) -> httpx2.URL:
    """Raises ``EndedError``, which does not repeat the URL: a secret may stand in it."""
    try:
        return httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        raise EndedError("has a URL that cannot be read: correct it in the client's settings") from None


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` and what we ask for ourselves. Raises ``EndedError``, which tells no value."""
    if ours := sorted(name for name in headers if name.lower() in _OURS):
        raise EndedError(f"has the header `{ours[0]}` in the client's settings, which is not for them: remove it")
    # A few compressed bytes may unfold into gigabytes.
    return {**headers, "Accept-Encoding": "identity"}


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for the whole process: the certificates of the world weigh about a megabyte."""
    return httpx2.create_ssl_context(trust_env=False)


class _BoundError(httpx2.StreamError):
    """The answer is none that we go on reading."""


class _CheckedTransport(httpx2.AsyncBaseTransport):
    """Sends requests to ``url`` to its checked ``addresses`` alone; TLS still asks for the host by its name."""

    def __init__(self, url: httpx2.URL, addresses: Sequence[str], traffic: Traffic) -> None:
        self._url = url
        self._addresses = addresses
        self._traffic = traffic
        self._inner = httpx2.AsyncHTTPTransport(verify=_tls(), trust_env=False, limits=_LIMITS)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url != self._url:
            raise self._trouble("leads to another address")
        if request.method == "GET" and "last-event-id" not in request.headers:
            # The stream for what the server says unasked: nothing of it is needed, and it would hold a connection.
            return httpx2.Response(405)
        try:
            response = await self._sent(request)
        except httpx2.TransportError:
            self._trouble("cannot be reached, or broke off: it may be down, or its URL wrong")
            raise
        return await self._judged(request, response)

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        """Where an address takes no connection, the next one is tried; nothing was sent until then."""
        for address in self._addresses[:-1]:
            try:
                return await self._inner.handle_async_request(self._to(address, request))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(self._to(self._addresses[-1], request))

    def _to(self, address: str, request: httpx2.Request) -> httpx2.Request:
        return httpx2.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": self._url.raw_host.decode()},
        )

    async def _judged(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        trouble = _unacceptable(response)
        if trouble:
            await response.aclose()
            raise self._trouble(trouble)
        if response.status_code == httpx2.codes.NOT_FOUND and "mcp-session-id" in request.headers:
            self._trouble("has ended the session")
        elif response.is_error and "json" not in response.headers.get("content-type", ""):
            await response.aclose()
            return _in_words(response.status_code)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response.stream, self._trouble),
            extensions=response.extensions,
        )

    def _trouble(self, words: str) -> _BoundError:
        self._traffic.trouble = self._traffic.trouble or words
        return _BoundError(words)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _unacceptable(response: httpx2.Response) -> str | None:
    if 300 <= response.status_code < 400:  # noqa: PLR2004 - the class of redirects
        return "redirects to another address, which is not followed: set the URL it redirects to in the settings"
    if response.headers.get("content-encoding", "identity") != "identity":
        return "compresses its answers though it was asked not to"
    return None


def _in_words(status: int) -> httpx2.Response:
    """An error answer in the form of the protocol, so that it reaches the call that it is for."""
    hint = ": check the headers in the client's settings" if status in {401, 403} else ""
    error = {"code": INTERNAL_ERROR, "message": f"HTTP status {status}{hint}"}
    return httpx2.Response(status, json={"jsonrpc": "2.0", "id": None, "error": error})


class _Bounded(httpx2.AsyncByteStream):
    """The answer's body, up to ``MAX_RESPONSE_BYTES``."""

    def __init__(self, body: httpx2.AsyncByteStream, trouble: Callable[[str], Exception]) -> None:
        self._body = body
        self._trouble = trouble

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room = MAX_RESPONSE_BYTES
        try:
            async for chunk in self._body:
                room -= len(chunk)
                if room < 0:
                    raise self._trouble(f"sent an answer of more than {MAX_RESPONSE_BYTES // 1024 // 1024} MB")
                yield chunk
        except httpx2.TransportError:
            self._trouble("broke off its answer")
            raise

    async def aclose(self) -> None:
        await self._body.aclose()
