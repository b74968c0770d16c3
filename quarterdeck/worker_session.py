"""One Worker session: its events over as many connections as it takes, its status and its end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import EventSource
from pydantic import BaseModel

from quarterdeck.sse import HEALTHY_SECONDS
from quarterdeck.worker_answers import SessionStatus
from quarterdeck.worker_errors import Code, WorkerError
from quarterdeck.worker_events import ClaudeDelta, Complete, Failed, SessionEvent, decode
from quarterdeck.worker_requests import Requests

_START = "/interactive/start"
_START_TRIES = 3
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 10.0
_LONGEST_ASKED_SECONDS = 60.0
"""A server that wants a longer pause is not waited for: its word is handed on."""
_PASSING = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)


class _Ended(BaseModel):
    """The body of an answer that nobody looks at."""


class Session:
    """Read it by ``stream`` or ``events``; a loop that was left goes on, in the next one, behind its last event."""

    def __init__(self, requests: Requests, session_id: str, *, tries: int, last_event_id: str = "") -> None:
        self.session_id = session_id
        self.last_event_id = last_event_id
        """Of the last event that was read: with it, `interactive.attach` goes on behind that event."""
        self._requests = requests
        self._tries = tries
        self._answer: httpx.Response | None = None
        self._reader: object = None
        self._over = asyncio.Event()
        """Nothing more is to be read here."""

    async def stream(self) -> AsyncGenerator[ClaudeDelta, None]:
        """What the model writes, piece by piece, to the session's end. Raises WorkerError where that is an error."""
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, ClaudeDelta):
                    yield event
                elif isinstance(event, Failed):
                    raise WorkerError(Code.SESSION_ERROR, event.message)

    async def events(self) -> AsyncGenerator[SessionEvent, None]:
        """Every event once and in order; the last one is ``Complete`` or ``Failed``. Raises WorkerError.

        A loop that begins takes the session over from the one before.
        """
        if self._reader is not None:
            await self._let_go()
        self._reader = reader = object()
        backoff = _Backoff(self._tries)
        while not self._over.is_set():
            self._check(reader)
            try:
                async with aclosing(self._connected(backoff, reader)) as events:
                    async for event in events:
                        yield event
            except WorkerError as error:
                if not self._over.is_set():
                    self._check(reader)
                    await backoff.pause(error, self._over)

    async def status(self) -> SessionStatus:
        params = {"sessionId": self.session_id}
        return await self._requests.ask(SessionStatus, "GET", "/interactive/status", params=params)

    async def end(self) -> None:
        """Stop the session's work; whoever reads it comes to the end."""
        await self._requests.ask(_Ended, "DELETE", f"/interactive/{quote(self.session_id, safe='')}")
        await self.close()

    async def close(self) -> None:
        """Let go of the stream: the work goes on, and nothing more is read here."""
        self._over.set()
        await self._let_go()

    async def begin(self, body: Mapping[str, Any]) -> None:
        """Ask for the session. An answer is final; where none came, it is looked whether the session is there."""
        backoff = _Backoff(_START_TRIES)
        while self._answer is None:
            try:
                self._answer = await self._open("POST", body=body)
            except WorkerError as error:
                if error.status is not None:
                    raise
                await backoff.pause(error, self._over)
                await self._look(backoff)

    async def _look(self, backoff: _Backoff) -> None:
        while True:
            try:
                self._answer = await self._attach()
            except WorkerError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return
                await backoff.pause(error, self._over)
            else:
                return

    async def _connected(self, backoff: _Backoff, reader: object) -> AsyncGenerator[SessionEvent, None]:
        """One connection's events. Raises WorkerError where it ends before the session."""
        if self._answer is None:
            self._answer = await self._attach()
        answer, opened = self._answer, time.monotonic()
        try:
            async with aclosing(self._read(answer, backoff)) as events:
                async for event in events:
                    self._check(reader)
                    if isinstance(event, Complete | Failed):
                        self._over.set()
                    yield event
                    self._check(reader)
                    if self._over.is_set():
                        return
            if answer.status_code == HTTPStatus.NO_CONTENT:  # nothing is left
                self._over.set()
                return
            raise WorkerError(Code.UNAVAILABLE, "The stream ended before the session did.")
        except (httpx.RequestError, httpx.StreamError) as error:
            raise self._requests.broken(error) from error
        finally:
            backoff.connected(time.monotonic() - opened)
            if self._answer is answer:
                self._answer = None
            await answer.aclose()

    async def _read(self, answer: httpx.Response, backoff: _Backoff) -> AsyncGenerator[SessionEvent, None]:
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return
        async with aclosing(EventSource(answer).aiter_sse()) as messages:
            async for message in messages:
                backoff.ask(message.retry)
                self.last_event_id = message.id or self.last_event_id
                if event := decode(message):
                    backoff.forget()
                    yield event

    def _check(self, reader: object) -> None:
        if self._reader is not reader:
            raise WorkerError(Code.ALREADY_READING, "Another loop has taken this session over.")

    async def _let_go(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.aclose()

    async def _attach(self) -> httpx.Response:
        headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
        return await self._open("GET", params={"sessionId": self.session_id}, headers=headers)

    async def _open(
        self,
        method: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        accepted = {"Accept": "text/event-stream", "Cache-Control": "no-store", **(headers or {})}
        answer = await self._requests.open(method, _START, params=params, body=body, headers=accepted)
        kind = answer.headers.get("Content-Type", "none")
        if answer.status_code != HTTPStatus.NO_CONTENT and not kind.startswith("text/event-stream"):
            await answer.aclose()
            raise WorkerError(
                Code.PROTOCOL_ERROR, f"The answer is no event stream (its type: {kind}). Is it a Worker API?"
            )
        self.session_id = answer.headers.get("X-Session-Id", self.session_id)
        return answer


class _Backoff:
    """``tries``: how many connections in a row may bring nothing new."""

    def __init__(self, tries: int) -> None:
        self._tries = tries
        self._failures = 0
        self._first_seconds = _FIRST_PAUSE_SECONDS

    def forget(self) -> None:
        self._failures = 0

    def ask(self, milliseconds: int | None) -> None:
        """The server told the first pause."""
        if milliseconds is not None:
            self._first_seconds = milliseconds / 1000

    def connected(self, seconds: float) -> None:
        if seconds > HEALTHY_SECONDS:
            self.forget()

    async def pause(self, error: WorkerError, over: asyncio.Event) -> None:
        """Until the next connection, or ``over``; raises ``error`` where there is none."""
        asked = error.retry_after_seconds or 0.0
        self._failures += 1
        if not _is_passing(error) or self._failures >= self._tries or asked > _LONGEST_ASKED_SECONDS:
            raise error
        growing = min(self._first_seconds * 2 ** (self._failures - 1), _LONGEST_PAUSE_SECONDS)
        pause = max(asked, growing * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), pause)


def _is_passing(error: WorkerError) -> bool:
    return error.code == Code.UNAVAILABLE if error.status is None else error.status in _PASSING
