"""The asynchronous client of a Worker API: its health, and its interactive sessions. It holds no state of jobs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from quarterdeck.worker_answers import SessionStatus, WorkerHealth
from quarterdeck.worker_errors import Code, WorkerError
from quarterdeck.worker_events import (
    ClaudeDelta,
    ClaudeEnd,
    ClaudeStart,
    Complete,
    Connected,
    Failed,
    FileChange,
    SessionEvent,
    Status,
)
from quarterdeck.worker_requests import Requests
from quarterdeck.worker_session import Session

__all__ = [
    "ClaudeCodeWorker",
    "ClaudeDelta",
    "ClaudeEnd",
    "ClaudeStart",
    "Code",
    "Complete",
    "Connected",
    "Failed",
    "FileChange",
    "Interactive",
    "Session",
    "SessionEvent",
    "SessionStatus",
    "Status",
    "WorkerError",
    "WorkerHealth",
]

TIMEOUT = timedelta(seconds=60)
"""Servers send comments more often than that."""
TRIES = 8


class ClaudeCodeWorker:
    """A client of one Worker API; use it in ``async with``.

    ``api_key``: a bearer token, where the server wants one. ``timeout``: the longest wait for an answer, and between
    two pieces of a stream. ``tries``: how many connections of a session in a row may bring nothing new. ``transport``:
    in place of the network. Everything here raises WorkerError.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: timedelta = TIMEOUT,
        tries: int = TRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if tries < 1:
            raise WorkerError(Code.INVALID_ARGUMENT, "tries must be 1 or more.")
        if timeout <= timedelta():
            raise WorkerError(Code.INVALID_ARGUMENT, "timeout must be longer than nothing.")
        self._requests = Requests(base_url, api_key, timeout, transport)
        self.interactive = Interactive(self._requests, tries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._requests.close()

    async def health(self) -> WorkerHealth:
        """Also where the server is unhealthy: look at ``status``."""
        return await self._requests.ask(WorkerHealth, "GET", "/health", also=(HTTPStatus.SERVICE_UNAVAILABLE,))


class Interactive:
    """``ClaudeCodeWorker.interactive``."""

    def __init__(self, requests: Requests, tries: int) -> None:
        self._requests = requests
        self._tries = tries

    async def start(
        self,
        prompt: str,
        repository: str | Mapping[str, str] | None = None,
        *,
        session_id: str | None = None,
        anthropic_api_key: str | None = None,
        anthropic_base_url: str | None = None,
        github_token: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Session:
        """Start a session; return once the server has taken it.

        ``repository``: `owner/repo`, a URL, a path on the server, or a mapping with `url`, `name` and `branch`; None:
        an empty folder.
        ``session_id``: default: a random one. ``options``: `maxTurns`, `permissionMode`, `createPR`.
        The key, the address and the token are for this session alone.
        """
        session = Session(self._requests, session_id or secrets.token_hex(16), tries=self._tries)
        wanted = {
            "prompt": prompt,
            "repository": _described(repository),
            "sessionId": session.session_id,
            "anthropicApiKey": anthropic_api_key,
            "anthropicBaseUrl": anthropic_base_url,
            "githubToken": github_token,
            "options": options,
        }
        await session.begin({name: value for name, value in wanted.items() if value is not None})
        return session

    def attach(self, session_id: str, *, last_event_id: str | None = None) -> Session:
        """A session that was started before, by whomever; its events behind ``last_event_id``, or all of them.

        Nothing is asked before it is read.
        """
        return Session(self._requests, session_id, tries=self._tries, last_event_id=last_event_id or "")


def _described(repository: str | Mapping[str, str] | None) -> Mapping[str, str] | None:
    if not isinstance(repository, str):
        return repository
    return {"url": repository} if ":" in repository or repository.startswith("/") else {"name": repository}
