"""API keys that a dialect is told in its settings: compared in constant time, and never logged."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

from aiohttp import web

from services.gateway.credentials import basic_key, bearer_key, is_plausible_key
from services.gateway.problems import ProblemError

KEY_HEADER = "X-API-Key"
SECURITY: Final[Mapping[str, Mapping[str, str]]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
}
"""How a key is sent, as OpenAPI describes it."""


class ApiKeys:
    def __init__(self, keys: Iterable[str], *, realm: str) -> None:
        self._digests = [_digest(key) for key in keys]
        self._realm = realm

    def admit(self, request: web.Request) -> None:
        """By `Authorization: Bearer KEY` or `X-API-Key: KEY`. Raises ``ProblemError``: 401."""
        given = (bearer_key(request.headers.get("Authorization", "")), request.headers.get(KEY_HEADER))
        if not any([self._is_known(key) for key in given if key is not None]):  # noqa: C419  as long for every key
            raise self._refusal(f'Bearer realm="{self._realm}"', "as `Authorization: Bearer KEY` or `X-API-Key: KEY`")

    def admit_browser(self, request: web.Request) -> None:
        """By HTTP Basic: any user name, a key as the password. Raises ``ProblemError``: 401."""
        key = basic_key(request.headers.get("Authorization", ""))
        if key is None or not self._is_known(key):
            raise self._refusal(f'Basic realm="{self._realm}: API key as password", charset="UTF-8"', "as the password")

    def _is_known(self, key: str) -> bool:
        digest = _digest(key) if is_plausible_key(key) else b""
        return any([hmac.compare_digest(digest, each) for each in self._digests])  # noqa: C419  no early exit

    def _refusal(self, challenge: str, how: str) -> ProblemError:
        return ProblemError(401, f"Invalid or missing API key: send it {how}", headers={"WWW-Authenticate": challenge})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
