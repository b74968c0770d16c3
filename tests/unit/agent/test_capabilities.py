"""What each model is asked with, as the provider's documentation has it."""

from __future__ import annotations

from typing import get_args

import orjson
import pytest
from anthropic.types import ModelParam

from services.agent.model import Profile, encode_request
from services.agent.model.capabilities import Capabilities, capabilities
from services.contracts.words import Effort

SDK_MODELS = [name for literal in get_args(ModelParam) for name in get_args(literal)]
UNKNOWN = capabilities("claude-never-heard-of")
NONE: frozenset[Effort] = frozenset()
TO_HIGH = frozenset({Effort.LOW, Effort.MEDIUM, Effort.HIGH})
ALL = frozenset(Effort)


@pytest.mark.parametrize(
    ("model", "max_tokens", "temperature", "efforts"),
    [
        ("claude-fable-5-2", 128_000, False, ALL),
        ("claude-haiku-5-5", 128_000, False, ALL),
        ("claude-opus-5", 128_000, False, ALL),
        ("claude-sonnet-5", 128_000, False, ALL),
        ("claude-opus-4-8", 128_000, False, ALL),
        ("claude-opus-4-7", 128_000, False, ALL),
        ("claude-opus-4-6", 128_000, True, TO_HIGH | {Effort.MAX}),
        ("claude-sonnet-4-6", 128_000, True, TO_HIGH | {Effort.MAX}),
        ("claude-opus-4-5", 64_000, True, TO_HIGH),
        ("claude-opus-4-5-20251101", 64_000, True, TO_HIGH),
        ("claude-sonnet-4-5", 64_000, True, NONE),
        ("claude-haiku-4-5-20251001", 64_000, True, NONE),
        ("claude-opus-4-1", 32_000, True, NONE),
    ],
)
def test_what_a_model_takes(model: str, max_tokens: int, temperature: bool, efforts: frozenset[Effort]):
    able = capabilities(model)
    assert (able.max_tokens, able.temperature, able.efforts) == (max_tokens, temperature, efforts)
    assert able.adaptive_thinking == (model in {"claude-fable-5-2", "claude-haiku-5-5"})


@pytest.mark.parametrize("model", [name for name in SDK_MODELS if name != "claude-mythos-preview"])
def test_each_model_that_the_sdk_names_is_known(model: str):
    """But for one whose end of life is past."""
    assert capabilities(model) != UNKNOWN


def test_the_sdk_names_models():
    assert "claude-opus-5-5" in SDK_MODELS


@pytest.mark.parametrize("model", ["claude-opus-6", "claude-mythos-preview", "another"])
def test_an_unknown_model_is_asked_with_what_all_take(model: str):
    assert capabilities(model) == UNKNOWN == Capabilities(64_000)


def sent(profile: Profile) -> dict[str, object]:
    request: dict[str, object] = orjson.loads(
        encode_request(profile, b'"tools":[]', [], max_tokens=profile.most_tokens)
    )
    return request


def test_an_effort_above_what_a_model_takes_is_left_out_and_told():
    profile = Profile("claude-opus-4-6", 128_000, temperature=0.5, effort=Effort.XHIGH)
    assert profile.left_out() == ["claude-opus-4-6 takes no effort of xhigh: it was left out"]
    assert "output_config" not in sent(profile)
    assert (sent(profile)["max_tokens"], sent(profile)["temperature"]) == (128_000, 0.5)


def test_what_a_model_takes_is_sent_and_not_told():
    profile = Profile("claude-sonnet-4-6", 128_000, effort=Effort.MAX)
    assert profile.left_out() == []
    assert sent(profile)["output_config"] == {"effort": "max"}
