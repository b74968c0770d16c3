"""What each family of models takes, by the beginning of its name: what it does not take is left out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    max_tokens: int
    """Most tokens of one reply that the model allows."""
    adaptive_thinking: bool
    """Text between tool calls comes as thinking, shown only when summaries are asked for."""


_FAMILIES = (
    ("claude-opus-5-5", Capabilities(max_tokens=128_000, adaptive_thinking=True)),
    ("claude-sonnet-5-5", Capabilities(max_tokens=128_000, adaptive_thinking=True)),
    ("claude-haiku-5-5", Capabilities(max_tokens=128_000, adaptive_thinking=True)),
)
_UNKNOWN = Capabilities(max_tokens=64_000, adaptive_thinking=False)


def capabilities(model: str) -> Capabilities:
    """Those of ``model``; cautious ones where it is not known."""
    return next((found for prefix, found in _FAMILIES if model.startswith(prefix)), _UNKNOWN)
