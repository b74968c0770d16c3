"""The one way to GitHub: paced, timed, conditional where it reads, and with every failure as a ``ForgeError``.
Here alone githubkit is spoken. It is asked for plain JSON: its models demand more than older servers send.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import httpx
from githubkit import GitHub, Response
from githubkit.auth import UnauthAuthStrategy
from githubkit.auth.app import AppAuth
from githubkit.cache import MemCacheStrategy
from githubkit.exception import RequestError, RequestFailed, RequestTimeout

from services.vcs.errors import ForgeError, ForgePausedError, ForgeUnavailableError
from services.vcs.forges.github.config import GitHubConfig
from services.vcs.forges.github.errors import Failure, error_of, limit_of, words_of
from services.vcs.forges.github.etags import Known, KnownAnswers
from services.vcs.forges.github.pace import Pace

CONNECT_TIMEOUT: Final = timedelta(seconds=10)
TOTAL_TIMEOUT: Final = timedelta(seconds=30)
_USER_AGENT: Final = "Quarterdeck"
_API_VERSION: Final = "2022-11-28"

_NOT_MODIFIED: Final = 304
_UNAUTHORIZED: Final = 401
_FIRST_NO_SUCCESS: Final = 300


class Access(Protocol):
    """As whom a request is made. ``key`` tells one access from another; it is no secret."""

    @property
    def key(self) -> str: ...

    async def token(self) -> str: ...

    async def renewed(self, stale: str) -> str | None:
        """Another token where ``stale`` was not accepted; None where there is no other."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``data``: the JSON; None where there is none. ``is_last``: no page follows."""

    data: Any
    is_last: bool


class Transport:
    def __init__(self, config: GitHubConfig, pace: Pace, *, total_timeout: timedelta = TOTAL_TIMEOUT) -> None:
        """``total_timeout``: for one request with its answer; connecting may take 10 s of it."""
        self._settings = config.credential_settings
        self._pace = pace
        self._total_seconds = total_timeout.total_seconds()
        self._client = _client(config, self._total_seconds)
        self._signer = AppAuth(self._client, config.app_id, config.private_key)
        self._known = KnownAnswers()
        self._guesses = 0
        self._apart: dict[str, float] = {}
        """Paths with a limit of their own, and the monotonic time until which it is spent."""

    async def aclose(self) -> None:
        await self._client.aclose()

    async def signed(self) -> str:
        """A JWT of the App, good for some minutes."""
        return await self._signer.aget_jwt()

    async def call(
        self,
        access: Access,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Any = None,
        creates: bool = False,
    ) -> Answer:
        """``path``: quoted, from the API's root, or a URL. ``creates``: it opens a pull request.

        Raises ``ForgePausedError`` (nothing was done), ``ForgeUnavailableError`` (it may have been done), and what the
        table in ``errors`` makes of an answer.
        """
        self._refuse_apart(path)
        await self._pace.before(creates=creates)
        key = f"{access.key} {path}?{urlencode(params or {})}"
        known = self._known.get(key) if method == "GET" else None
        response = await self._asked(access, method, path, params=params, body=body, known=known)
        if response.status_code == _NOT_MODIFIED and known:
            return _answer(known.content, known.is_last, f"{method} {path}")
        if response.status_code >= _FIRST_NO_SUCCESS:
            raise await self._error(response, method, path)
        self._guesses = 0
        is_last = 'rel="next"' not in response.headers.get("link", "")
        if method == "GET" and (etag := response.headers.get("etag")):
            self._known.put(key, Known.of(etag, response.content, is_last=is_last))
        return _answer(response.content, is_last, f"{method} {path}")

    async def _asked(
        self,
        access: Access,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None,
        body: Any,
        known: Known | None,
    ) -> Response[Any]:
        """A token that is not accepted is replaced once: a request that was answered 401 has done nothing."""
        headers = {"If-None-Match": known.etag} if known else {}
        token = await access.token()
        response = await self._sent(method, path, params=params, body=body, headers=headers | _bearer(token))
        if response.status_code != _UNAUTHORIZED or (fresh := await access.renewed(token)) is None:
            return response
        return await self._sent(method, path, params=params, body=body, headers=headers | _bearer(fresh))

    async def _sent(
        self, method: str, path: str, *, params: dict[str, str] | None, body: Any, headers: dict[str, str]
    ) -> Response[Any]:
        asked = f"{method} {path}"
        try:
            async with asyncio.timeout(self._total_seconds):
                return await self._client.arequest(method, path, params=params, json=body, headers=headers)
        except RequestFailed as failed:
            return failed.response
        except (RequestTimeout, TimeoutError) as error:
            words = f"GitHub did not answer {asked} within {self._total_seconds:g} s; try again later"
            raise ForgeUnavailableError(words) from error
        except RequestError as error:
            words = f"GitHub could not be reached for {asked} ({type(error.exc).__name__}); try again later"
            raise ForgeUnavailableError(words) from error
        except ValueError as error:
            # githubkit reads the headers of a limit as numbers, whatever they are.
            raise ForgeUnavailableError(f"the answer to {asked} cannot be read; is it GitHub's?") from error

    def _refuse_apart(self, path: str) -> None:
        left = self._apart.get(path, 0.0) - time.monotonic()
        if left > 0:
            raise ForgePausedError(f"GitHub wants {path} to be asked less", seconds=left)

    async def _error(self, response: Response[Any], method: str, path: str) -> ForgeError:
        failure = Failure(response.status_code, response.headers, _words(response), f"{method} {path}", self._settings)
        limited = limit_of(failure, now=time.time(), guesses=self._guesses)
        if limited is None:
            return error_of(failure)
        self._guesses += limited.is_guess
        if limited.is_apart:
            now = time.monotonic()
            self._apart = {spent: until for spent, until in self._apart.items() if until > now}
            self._apart[path] = now + limited.seconds
        else:
            await self._pace.pause(limited.seconds, limited.reason)
        return ForgePausedError(f"GitHub wants to be asked less: {limited.reason}", seconds=limited.seconds)


class _Client(GitHub[UnauthAuthStrategy]):
    """githubkit makes an HTTP client for each request; this one keeps the one with its connections."""

    _kept: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def get_async_client(self) -> AsyncIterator[httpx.AsyncClient]:
        if self._kept is None:
            self._kept = await self._create_async_client()
        yield self._kept

    async def aclose(self) -> None:
        if self._kept is not None:
            await self._kept.aclose()


def _client(config: GitHubConfig, total_seconds: float) -> _Client:
    """Retries, redirects and githubkit's cache are off: the caller decides on the first, the last may grow for ever."""
    return _Client(
        UnauthAuthStrategy(),
        base_url=config.api_url,
        user_agent=_USER_AGENT,
        follow_redirects=False,
        timeout=httpx.Timeout(total_seconds, connect=min(CONNECT_TIMEOUT.total_seconds(), total_seconds)),
        cache_strategy=MemCacheStrategy(),
        http_cache=False,
        auto_retry=False,
    )


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": _API_VERSION}


def _answer(content: bytes, is_last: bool, asked: str) -> Answer:
    try:
        return Answer(json.loads(content) if content else None, is_last)
    except ValueError as error:
        raise ForgeUnavailableError(f"the answer to {asked} is no JSON; is it GitHub's?") from error


def _words(response: Response[Any]) -> str:
    try:
        return words_of(response.json())
    except ValueError:
        return ""
