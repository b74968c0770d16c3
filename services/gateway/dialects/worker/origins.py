"""Which pages of others may call the API from a browser (CORS). Knows nothing of requests but their `Origin`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
HEADERS = "Content-Type, Authorization, X-Requested-With, Last-Event-ID"
"""The documented ones, and what a stream is taken up again with."""
EXPOSED = (
    "X-Session-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, X-Response-Time, "
    "X-Request-Count, X-Request-Id"
)
PREFLIGHT_SECONDS = 600


class Origins:
    """``allowed``: as browsers write them. Credentials of the browser, such as cookies, are never allowed."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = allowed

    def admits(self, origin: str | None) -> bool:
        return origin is not None and origin in self._allowed

    def headers(self, origin: str | None) -> Mapping[str, str]:
        """Of every answer, errors too: without them a page is not even told what was wrong."""
        if origin is None or origin not in self._allowed:
            return {"Vary": "Origin"}
        return {"Vary": "Origin", "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}

    def preflight(self, origin: str | None) -> Mapping[str, str]:
        """Of the answer to `OPTIONS`, besides those of every answer."""
        if not self.admits(origin):
            return {}
        return {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }
