"""The ids of a stream's messages, as they go out and come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.events.position import BadPositionError, Position


@given(
    number=st.integers(0, 2**29),
    incarnation=st.from_regex(r"[0-9a-f]{11}|-", fullmatch=True),
    sequence=st.integers(0, 2**59),
)
def test_an_id_comes_back_as_it_went_out(number: int, incarnation: str, sequence: int):
    position = Position(number, incarnation, sequence)
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text", ["", "1", "1:2", "1:-:x", "-1:-:0", "1:A:0", "1:-:0 ", "1:-:0\n", "\u0661:-:0", "1:" + "a" * 40 + ":1"]
)
def test_anything_else_is_refused(text: str):
    with pytest.raises(BadPositionError):
        Position.parse(text)


def test_what_is_behind_is_told_within_one_incarnation_alone():
    position = Position(3, "one", 10)
    assert position.has_passed("one", 10)
    assert not position.has_passed("one", 11)
    assert not position.has_passed("two", 1)
