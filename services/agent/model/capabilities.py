"""What each family of models takes, by the beginning of its name: what it does not take is left out.

As the provider's documentation says (its overviews of models and its page on effort); it was not tried.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.contracts.words import Effort


@dataclass(frozen=True)
class Capabilities:
    max_tokens: int
    """Most tokens of one reply that the model allows."""
    adaptive_thinking: bool = False
    """Text between tool calls comes as thinking, shown only when summaries are asked for."""
    efforts: frozenset[Effort] = frozenset()
    """Levels of `output_config.effort` that it takes."""
    temperature: bool = False


_TO_HIGH = frozenset({Effort.LOW, Effort.MEDIUM, Effort.HIGH})
_ALL = frozenset(Effort)

_NEWEST = Capabilities(128_000, adaptive_thinking=True, efforts=_ALL)
_FIFTH = Capabilities(128_000, efforts=_ALL)
_FOUR_SIX = Capabilities(128_000, efforts=_TO_HIGH | {Effort.MAX}, temperature=True)
_FOUR_FIVE_OPUS = Capabilities(64_000, efforts=_TO_HIGH, temperature=True)
_FOURTH_OPUS = Capabilities(32_000, temperature=True)
_FOURTH = Capabilities(64_000, temperature=True)
_THIRD = Capabilities(8_192, temperature=True)
# The first that fits counts.
_FAMILIES = (
    ("claude-opus-5-5", _NEWEST),
    ("claude-sonnet-5-5", _NEWEST),
    ("claude-haiku-5-5", _NEWEST),
    ("claude-fable-5", _NEWEST),
    ("claude-mythos-5", _NEWEST),
    ("claude-opus-5", _FIFTH),
    ("claude-sonnet-5", _FIFTH),
    ("claude-opus-4-8", _FIFTH),
    ("claude-opus-4-7", _FIFTH),
    ("claude-opus-4-6", _FOUR_SIX),
    ("claude-sonnet-4-6", _FOUR_SIX),
    ("claude-opus-4-5", _FOUR_FIVE_OPUS),
    ("claude-opus-4", _FOURTH_OPUS),
    ("claude-sonnet-4", _FOURTH),
    ("claude-haiku-4", _FOURTH),
    ("claude-3", _THIRD),
)
_UNKNOWN = Capabilities(64_000)


def capabilities(model: str) -> Capabilities:
    """Those of ``model``; cautious ones where it is not known."""
    return next((found for prefix, found in _FAMILIES if model.startswith(prefix)), _UNKNOWN)
