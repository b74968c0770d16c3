"""The one place that speaks `anthropic`: a request goes in, a whole reply comes out, deltas on the way."""

from services.agent.model.client import Claude, Endpoint, FreePace, Pace, Request, Watch
from services.agent.model.reply import INTERRUPTED, Fragment, Reply, StreamBrokenError
from services.agent.model.request import Profile, encode_head, encode_request, tools_of
from services.agent.model.retry import (
    ContextExhaustedError,
    ModelRejectedError,
    ModelUnavailableError,
    Patience,
    PostponedError,
)

__all__ = [
    "INTERRUPTED",
    "Claude",
    "ContextExhaustedError",
    "Endpoint",
    "Fragment",
    "FreePace",
    "ModelRejectedError",
    "ModelUnavailableError",
    "Pace",
    "Patience",
    "PostponedError",
    "Profile",
    "Reply",
    "Request",
    "StreamBrokenError",
    "Watch",
    "encode_head",
    "encode_request",
    "tools_of",
]
