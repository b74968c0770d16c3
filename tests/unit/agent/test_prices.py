"""What tokens cost: what the price list itself would reckon, rounded up, and quickly enough for every request."""

from __future__ import annotations

import math
import subprocess
import sys
from decimal import Decimal
from types import SimpleNamespace

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.model import prices
from services.agent.model.prices import cost_microusd, most_output_tokens, worst_microusd
from services.jobs.models import Usage

# One price, tiers by input, one that depends on the date, one without prices for caching.
MODELS = ("claude-sonnet-5-5", "claude-sonnet-4-5", "claude-haiku-5-5", "claude-opus-4-6", "claude-2")
tokens = st.integers(0, 1_000_000)
usages = st.builds(Usage, tokens, tokens, tokens, tokens)


def listed_usd(model: str, used: Usage) -> Decimal:
    """As the package itself reckons: its input has the cached tokens in it."""
    usage = genai_prices.Usage(
        input_tokens=used.input_tokens + used.cache_read_input_tokens + used.cache_creation_input_tokens,
        cache_read_tokens=used.cache_read_input_tokens,
        cache_write_tokens=used.cache_creation_input_tokens,
        output_tokens=used.output_tokens,
    )
    return genai_prices.calc_price(usage, model, provider_id="anthropic").total_price


@given(model=st.sampled_from(MODELS), used=usages)
def test_a_cost_is_the_price_lists_own_rounded_up(model: str, used: Usage) -> None:
    assert cost_microusd(model, used) == math.ceil(listed_usd(model, used) * 1_000_000)


@given(model=st.sampled_from(MODELS), used=usages, unused=tokens)
def test_nothing_costs_more_than_its_worst(model: str, used: Usage, unused: int) -> None:
    cost = cost_microusd(model, used)
    worst = worst_microusd(
        model, input_tokens=used.total - used.output_tokens + unused, output_tokens=used.output_tokens
    )
    assert cost is not None
    assert worst is not None
    assert cost <= worst


@given(model=st.sampled_from(MODELS), input_tokens=tokens, microusd=st.integers(0, 10_000_000))
def test_the_most_output_is_just_what_fits(model: str, input_tokens: int, microusd: int) -> None:
    most = most_output_tokens(model, input_tokens=input_tokens, microusd=microusd)
    assert most is not None
    if most >= 0:
        worst = worst_microusd(model, input_tokens=input_tokens, output_tokens=most)
        one_more = worst_microusd(model, input_tokens=input_tokens, output_tokens=most + 1)
        assert worst is not None
        assert one_more is not None
        assert worst <= microusd < one_more
    else:
        input_alone = worst_microusd(model, input_tokens=input_tokens, output_tokens=0)
        assert input_alone is not None
        assert input_alone > microusd


def test_rounding_is_up_and_once() -> None:
    # 0.1 microdollars a token that is read from the cache.
    assert cost_microusd("claude-sonnet-5-5", Usage(cache_read_input_tokens=1)) == 1
    assert cost_microusd("claude-sonnet-5-5", Usage(cache_read_input_tokens=10)) == 1
    assert cost_microusd("claude-sonnet-5-5", Usage(cache_read_input_tokens=11)) == 2
    assert cost_microusd("claude-sonnet-5-5", Usage()) == 0


@pytest.mark.parametrize("model", ["offline", "claude-99", "gpt-4o", ""])
def test_a_model_that_is_not_listed_is_unpriced(model: str) -> None:
    assert cost_microusd(model, Usage(1, 1)) is None
    assert worst_microusd(model, input_tokens=1, output_tokens=1) is None
    assert most_output_tokens(model, input_tokens=1, microusd=1) is None


def test_a_price_that_changes_by_date_is_found_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1_772_000_000.0  # February 2026: a request with much input was dearer

    monkeypatch.setattr(prices, "time", SimpleNamespace(time=lambda: moment))
    before = cost_microusd("claude-opus-4-6", Usage(input_tokens=200_001))
    moment = 1_774_000_000.0  # the end of March
    after = cost_microusd("claude-opus-4-6", Usage(input_tokens=200_001))

    assert (before, after) == (2_000_010, 1_000_005)


def test_a_models_price_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cost_microusd("claude-sonnet-5-5", Usage(1, 1)) is not None
    monkeypatch.setattr(prices, "get_snapshot", None)

    assert cost_microusd("claude-sonnet-5-5", Usage(1, 1)) is not None


def test_no_socket_is_opened_and_no_thread_is_left() -> None:
    """The package can fetch newer prices in the background; it must never have been told to."""
    script = """
import socket, sys, threading
from services.agent.model import prices
from services.jobs.models import Usage
def refuse(*_): sys.exit("opened a socket")
socket.socket.connect = socket.getaddrinfo = refuse
threads = threading.active_count()
assert prices.cost_microusd("claude-sonnet-5-5", Usage(1_000_000)) == 2_000_000
assert prices.cost_microusd("no such model", Usage(1)) is None
assert threading.active_count() == threads
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
