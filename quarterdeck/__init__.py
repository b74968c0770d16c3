"""What a user of Quarterdeck imports: the client and its errors. Each is loaded when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quarterdeck.client import Client
    from quarterdeck.errors import (
        ApiError,
        ConflictError,
        InvalidRequestError,
        NotConfiguredError,
        NotFoundError,
        ProtocolError,
        QuarterdeckError,
        RateLimitedError,
        UnauthorizedError,
        UnavailableError,
        WaitTimeoutError,
    )
    from quarterdeck.sse import Event

__all__ = [
    "ApiError",
    "Client",
    "ConflictError",
    "Event",
    "InvalidRequestError",
    "NotConfiguredError",
    "NotFoundError",
    "ProtocolError",
    "QuarterdeckError",
    "RateLimitedError",
    "UnauthorizedError",
    "UnavailableError",
    "WaitTimeoutError",
]

_ELSEWHERE = {"Client": "quarterdeck.client", "Event": "quarterdeck.sse"}


def __getattr__(name: str) -> object:
    """Load lazily: the command line and the local stack start faster without the HTTP client."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "quarterdeck.errors")), name)
