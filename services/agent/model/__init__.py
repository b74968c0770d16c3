"""The one place that speaks `anthropic`: a request goes in, a whole reply comes out, deltas on the way."""

from services.agent.model.client import Claude
from services.agent.model.reply import Fragment, Reply, StreamBrokenError
from services.agent.model.retry import ModelRejectedError, ModelUnavailableError, Patience, PostponedError

__all__ = [
    "Claude",
    "Fragment",
    "ModelRejectedError",
    "ModelUnavailableError",
    "Patience",
    "PostponedError",
    "Reply",
    "StreamBrokenError",
]
