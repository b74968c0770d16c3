"""The manifest that GitHub makes an App from, where it is posted to, and the signed state that comes back. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson

from services.gateway.problems import FieldProblemError

STATE_SECONDS: Final = 3_600
"""As long as the code is good that comes back with it."""
EVENTS: Final = (
    "issues",
    "issue_comment",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "check_suite",
)
SENT_ANYWAY: Final = ("installation", "installation_repositories")
"""Every App gets these, and GitHub refuses a manifest that asks for them: "Default events unsupported"."""
PERMISSIONS: Final = {
    "contents": "write",
    "pull_requests": "write",
    "issues": "write",
    "checks": "read",  # without which there is no check_suite
    "metadata": "read",
}
_ORGANIZATION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})", re.ASCII)
_NONCE_BYTES = 18
_DIGEST_BYTES = 32


def manifest(address: str) -> dict[str, Any]:
    """``address``: where this API is reached, without a slash at its end. Its owner may choose another name there."""
    return {
        "name": f"Quarterdeck {secrets.token_hex(3)}",
        "url": address,
        "hook_attributes": {"url": f"{address}/webhooks/github", "active": True},
        "redirect_url": f"{address}/gh-setup/callback",
        "public": False,
        "default_permissions": dict(PERMISSIONS),
        "default_events": list(EVENTS),
    }


def posted_to(server: str, organization: str | None, state: str) -> str:
    """Raises ``FieldProblemError``. ``server``: GitHub's own pages, without a slash at its end."""
    if organization is None:
        return f"{server}/settings/apps/new?state={quote(state, safe='')}"
    if not _ORGANIZATION.fullmatch(organization):
        raise FieldProblemError("organization", "must be the name of a GitHub organisation: letters, digits and `-`")
    return f"{server}/organizations/{organization}/settings/apps/new?state={quote(state, safe='')}"


def is_reachable(address: str) -> bool:
    """Whether GitHub might reach ``address``, as far as its name tells."""
    host = urlsplit(address).hostname or ""
    return not (host == "localhost" or host.endswith(".localhost") or host.startswith("127.") or host == "::1")


@dataclass(frozen=True)
class State:
    """``nonce``: what the cookie of the browser that began has. ``redirect_url``: where to go at the end."""

    nonce: str
    redirect_url: str | None = None


class States:
    """Signs what comes back by way of GitHub, so that nothing need be remembered of it here."""

    def __init__(self, key: bytes, *, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._now = now

    def new(self, redirect_url: str | None) -> State:
        return State(secrets.token_urlsafe(_NONCE_BYTES), redirect_url)

    def sign(self, state: State) -> str:
        body = orjson.dumps([state.nonce, int(self._now()) + STATE_SECONDS, state.redirect_url])
        return base64.urlsafe_b64encode(self._digest(body) + body).decode().rstrip("=")

    def read(self, text: str, *, nonce: str) -> State:
        """Raises ``FieldProblemError`` unless it was signed here, for this ``nonce``, a short while ago."""
        try:
            signed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (ValueError, binascii.Error):
            raise _refusal() from None
        digest, body = signed[:_DIGEST_BYTES], signed[_DIGEST_BYTES:]
        if not hmac.compare_digest(digest, self._digest(body)):
            raise _refusal()
        its_nonce, until, redirect_url = orjson.loads(body)
        if self._now() >= until or not hmac.compare_digest(str(its_nonce).encode(), nonce.encode()):
            raise _refusal()
        return State(its_nonce, redirect_url)

    def _digest(self, body: bytes) -> bytes:
        return hmac.new(self._key, body, hashlib.sha256).digest()


def _refusal() -> FieldProblemError:
    words = "is none that this server gave to this browser within the last hour; begin again at /gh-setup"
    return FieldProblemError("state", words)
