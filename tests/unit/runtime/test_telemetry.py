"""Log lines: whatever is in them, each is one line of JSON in ASCII that tells no secret."""

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from services.runtime.telemetry import encoded


@dataclass
class Key:
    name: str
    secret: str = field(repr=False)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param("a word", "a word", id="a word"),
        pytest.param("\N{CONTROL SEQUENCE INTRODUCER}2J\N{LINE SEPARATOR}é\n", None, id="what terminals act upon"),
        pytest.param(2**70, float(2**70), id="a large number"),
        pytest.param({1: (2, None)}, {"1": [2, None]}, id="a dict"),
        pytest.param(Key("a", "hidden"), "Key(name='a')", id="what keeps a secret"),
    ],
)
def test_a_value_is_told_in_one_line_of_ascii(value: Any, told: Any) -> None:
    line = encoded({"event": "x", "value": value}, default=repr)

    assert line.isascii()
    assert line.isprintable()
    assert orjson.loads(line) == {"event": "x", "value": value if told is None else told}


def test_a_lone_surrogate_does_not_end_the_log() -> None:
    assert encoded({"value": "\ud800"}, default=repr) == r'{"value": "\ud800"}'
