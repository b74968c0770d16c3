"""What each family of models takes, by the beginning of its name: what it does not take is left out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    max_tokens: int
    """Most tokens of one reply that the model allows."""
    adaptive_thinking: bool = False
    """Text between tool calls comes as thinking, shown only when summaries are asked for."""
    effort: bool = False
    """Takes `output_config.effort`."""
    temperature: bool = False


_NEWEST = Capabilities(max_tokens=128_000, adaptive_thinking=True, effort=True)
_FIFTH = Capabilities(max_tokens=128_000, effort=True)
_FOURTH = Capabilities(max_tokens=64_000, temperature=True)
_THIRD = Capabilities(max_tokens=8_192, temperature=True)
# The first that fits counts.
_FAMILIES = (
    ("claude-opus-5-5", _NEWEST),
    ("claude-sonnet-5-5", _NEWEST),
    ("claude-haiku-5-5", _NEWEST),
    ("claude-fable-5", _NEWEST),
    ("claude-mythos-5", _NEWEST),
    ("claude-opus-5", _FIFTH),
    ("claude-sonnet-5", _FIFTH),
    ("claude-opus-4", _FOURTH),
    ("claude-sonnet-4", _FOURTH),
    ("claude-haiku-4", _FOURTH),
    ("claude-3", _THIRD),
)
_UNKNOWN = Capabilities(max_tokens=64_000)


def capabilities(model: str) -> Capabilities:
    """Those of ``model``; cautious ones where it is not known."""
    return next((found for prefix, found in _FAMILIES if model.startswith(prefix)), _UNKNOWN)
