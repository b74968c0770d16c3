"""What tokens cost, from the price list that comes with `genai-prices`. Nothing here ever asks the network.

Prices are exact; an amount is rounded up to whole microdollars (a millionth of a USD) once, at its end.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices

from services.jobs.models import Usage

_PROVIDER = "anthropic"
_PRICED_SECONDS = 3_600
"""A model's price may depend on the date: it is looked up again after so long."""
_MOST_MODELS = 256


@dataclass(frozen=True)
class _Rate:
    """USD a million tokens, so microdollars a token; dearer for a whole request whose input is over a tier's start."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()

    def at(self, input_tokens: int) -> Decimal:
        """For a request of so much input, cached one included."""
        rate = self.base
        for start, dearer in self.tiers:
            if input_tokens > start:
                rate = dearer
        return rate


@dataclass(frozen=True)
class _Price:
    input: _Rate
    cache_read: _Rate
    cache_creation: _Rate
    output: _Rate

    def worst_input(self, tokens: int) -> Decimal:
        """Of all rates that a request of up to so much input can meet, the dearest."""
        rates = (self.input, self.cache_creation)
        met = [dearer for rate in rates for start, dearer in rate.tiers if tokens > start]
        return tokens * max([rate.base for rate in rates] + met)

    def worst_output_rate(self, input_tokens: int) -> Decimal:
        return max([self.output.base] + [dearer for start, dearer in self.output.tiers if input_tokens > start])


def cost_microusd(model: str, used: Usage) -> int | None:
    """What a request has cost; None: ``model`` has no known price.

    ``used``: as the Messages API counts, so that `input_tokens` has no cached ones. A cache entry is taken to be of the
    5-minute kind.
    """
    price = _price(model)
    if price is None:
        return None
    total_input = used.input_tokens + used.cache_read_input_tokens + used.cache_creation_input_tokens
    return math.ceil(
        used.input_tokens * price.input.at(total_input)
        + used.cache_read_input_tokens * price.cache_read.at(total_input)
        + used.cache_creation_input_tokens * price.cache_creation.at(total_input)
        + used.output_tokens * price.output.at(total_input)
    )


def worst_microusd(model: str, *, input_tokens: int, output_tokens: int) -> int | None:
    """The most that a request of so many tokens can cost, none of its input being in the cache yet; None: no price."""
    price = _price(model)
    if price is None:
        return None
    return math.ceil(price.worst_input(input_tokens) + output_tokens * price.worst_output_rate(input_tokens))


def most_output_tokens(model: str, *, input_tokens: int, microusd: int) -> int | None:
    """The most output for which ``worst_microusd`` is within ``microusd``; negative where the input alone is not.

    None: no price, or output that costs nothing.
    """
    price = _price(model)
    if price is None or not (rate := price.worst_output_rate(input_tokens)):
        return None
    return math.floor((microusd - price.worst_input(input_tokens)) / rate)


def _price(model: str) -> _Price | None:
    return _priced(model, int(time.time() // _PRICED_SECONDS))


@lru_cache(maxsize=_MOST_MODELS)
def _priced(model: str, hour: int) -> _Price | None:
    """The price in the ``hour`` since the epoch."""
    try:
        _, found = get_snapshot().find_provider_model(model, None, _PROVIDER, None)
    except LookupError:
        return None
    return _of(found.get_prices(datetime.fromtimestamp(hour * _PRICED_SECONDS, UTC)))


def _of(listed: ModelPrice) -> _Price | None:
    plain, output = _rate(listed.input_mtok), _rate(listed.output_mtok)
    if plain is None or output is None:
        return None
    # Where caching has no price of its own, those tokens cost what any other input does.
    return _Price(
        input=plain,
        cache_read=_rate(listed.cache_read_mtok) or plain,
        cache_creation=_rate(listed.cache_write_mtok) or plain,
        output=output,
    )


def _rate(listed: Decimal | TieredPrices | None) -> _Rate | None:
    if isinstance(listed, TieredPrices):
        return _Rate(listed.base, tuple((tier.start, tier.price) for tier in listed.tiers))
    return None if listed is None else _Rate(listed)
