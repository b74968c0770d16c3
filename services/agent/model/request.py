"""A request as bytes: what never changes and each message are encoded once, so that a request is a join.

Messages go out exactly as they are stored: a resumed attempt sends the same bytes, which caching and the signatures of
thinking need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.agent.model.capabilities import capabilities
from services.contracts.words import Effort

_EPHEMERAL = {"type": "ephemeral"}
_VERSION_WITH_TEMPERATURE = "2023-06-01"
"""Of the API: the one that the SDK speaks refuses a temperature, whatever the model takes."""


@dataclass(frozen=True)
class Profile:
    """What a run asks its model with, beside the messages."""

    model: str
    max_tokens: int
    temperature: float | None = None
    effort: Effort | None = None

    def left_out(self) -> list[str]:
        """What was asked for and the model does not take, in words."""
        able = capabilities(self.model)
        told = []
        if self.temperature is not None and not able.temperature:
            told.append(f"{self.model} takes no temperature: it was left out")
        if self.effort is not None and self.effort not in able.efforts:
            which = f"effort of {self.effort}" if able.efforts else "effort"
            told.append(f"{self.model} takes no {which}: it was left out")
        if self.max_tokens > able.max_tokens:
            told.append(f"{self.model} replies with {able.max_tokens:,} tokens at most, not {self.max_tokens:,}")
        return told

    @property
    def most_tokens(self) -> int:
        """Of one reply."""
        return min(self.max_tokens, capabilities(self.model).max_tokens)

    @property
    def sent_temperature(self) -> float | None:
        return self.temperature if capabilities(self.model).temperature else None

    @property
    def api_version(self) -> str | None:
        """The version of the API that takes what is sent; None: the one that the SDK speaks."""
        return None if self.sent_temperature is None else _VERSION_WITH_TEMPERATURE


def encode_head(system: str, tools: Sequence[dict[str, Any]]) -> bytes:
    """System prompt and tools, as the beginning of every request of a run; kept with the run.

    One breakpoint of the cache behind what never changes; the service itself moves another behind the newest message.
    """
    head = {
        "tools": list(tools),
        "system": [{"type": "text", "text": system, "cache_control": _EPHEMERAL}],
        "cache_control": _EPHEMERAL,
    }
    return orjson.dumps(head)[1:-1]


def tools_of(head: bytes) -> list[dict[str, Any]]:
    """The tools that ``encode_head`` was given for ``head``."""
    tools: list[dict[str, Any]] = orjson.loads(b"{%s}" % head)["tools"]
    return tools


def encode_request(profile: Profile, head: bytes, messages: Sequence[bytes], *, max_tokens: int) -> bytes:
    """The body of one request. ``max_tokens``: of this reply, at most ``profile.most_tokens``."""
    able = capabilities(profile.model)
    options: dict[str, Any] = {"model": profile.model, "max_tokens": max_tokens, "stream": True}
    if able.adaptive_thinking:
        options["thinking"] = {"type": "adaptive", "display": "summarized"}
    if profile.sent_temperature is not None:
        options["temperature"] = profile.sent_temperature
    if profile.effort is not None and profile.effort in able.efforts:
        options["output_config"] = {"effort": profile.effort.value}
    return b"".join((orjson.dumps(options)[:-1], b",", head, b',"messages":[', b",".join(messages), b"]}"))
