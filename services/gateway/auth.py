"""Who calls: an API key looked up by its hash, remembered for a short while, and never logged."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from uuid import UUID

from aiohttp import web

from services.gateway.credentials import basic_key, bearer_key
from services.gateway.problems import ProblemError
from services.jobs.models import Client
from services.jobs.submission import Submissions
from services.runtime.postgres import StoreUnavailableError

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

CLIENT = web.RequestKey("client", Client)
BOOTSTRAP_CLIENT = "default"
KNOWN_SECONDS = 10.0
"""So long may a key that was replaced, or whose client was disabled, go on opening the other gateways."""
UNKNOWN_SECONDS = 2.0
"""Short, so that a key that was just made works, but long enough to take a wrong key's retries off Postgres."""
MOST_REMEMBERED = 10_000

_NO_KEY = "an API key is needed: send the header `Authorization: Bearer YOUR_KEY`"
_UNKNOWN_KEY = "this API key is not known here; check it for a typing error, or ask who runs this server for one"


class Authenticator:
    """Finds the client of a key. ``bootstrap_key``: stored for the client `default` at the start."""

    def __init__(self, submissions: Submissions, bootstrap_key: str | None) -> None:
        self._submissions = submissions
        self._bootstrap_key = bootstrap_key
        self._remembered: OrderedDict[bytes, tuple[float, Client | None]] = OrderedDict()
        self.is_ready = bootstrap_key is None

    async def store_bootstrap_key(self) -> None:
        """Raises ``StoreUnavailableError``; safe to run again."""
        if self._bootstrap_key is not None:
            await self._submissions.ensure_client(BOOTSTRAP_CLIENT, self._bootstrap_key, is_operator=True)
        self.is_ready = True

    async def client_of(self, api_key: str) -> Client | None:
        """Whose ``api_key`` it is; a revoked one may be taken for 10 s more. Raises ``StoreUnavailableError``."""
        digest = hashlib.sha256(api_key.encode()).digest()
        expires, client = self._remembered.get(digest, (0.0, None))
        if time.monotonic() < expires:
            return client
        # Whether the key is unknown or only not stored yet is not known before this.
        was_ready = self.is_ready
        client = await self._submissions.client_of(api_key)
        if client is None and not was_ready:
            raise StoreUnavailableError("the server has just started and has not stored its API key yet")
        self._remember(digest, client)
        return client

    def forget(self, client_id: UUID) -> None:
        """Ask Postgres again about the client's keys, since one was replaced or the client disabled."""
        for digest, (_, client) in list(self._remembered.items()):
            if client is not None and client.id == client_id:
                del self._remembered[digest]

    def _remember(self, digest: bytes, client: Client | None) -> None:
        lifetime = KNOWN_SECONDS if client else UNKNOWN_SECONDS
        self._remembered[digest] = (time.monotonic() + lifetime, client)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)


def by_bearer(authenticator: Authenticator, handler: Handler) -> Handler:
    """``handler`` for those alone who send a key by bearer; it finds them as `request[CLIENT]`."""
    return _guarded(authenticator, handler, bearer_key, 'Bearer realm="quarterdeck"')


def by_basic(authenticator: Authenticator, handler: Handler) -> Handler:
    """The same by HTTP Basic, which browsers ask for: any user name, the API key as the password."""
    return _guarded(
        authenticator, handler, basic_key, 'Basic realm="quarterdeck: API key as password", charset="UTF-8"'
    )


def _guarded(
    authenticator: Authenticator, handler: Handler, key_in: Callable[[str], str | None], challenge: str
) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        key = key_in(request.headers.get("Authorization", ""))
        client = await authenticator.client_of(key) if key else None
        if client is None:
            detail = _UNKNOWN_KEY if "Authorization" in request.headers else _NO_KEY
            raise ProblemError(401, detail, headers={"WWW-Authenticate": challenge})
        request[CLIENT] = client
        return await handler(request)

    return guarded
