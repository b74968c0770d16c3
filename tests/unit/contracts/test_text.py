"""What comes from outside is made fit for PostgreSQL and for terminals, and what is fit already stays as it is."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.contracts.text import clipped, is_storable, shown, storable

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Lone surrogates and controls too."""


@given(ANY_TEXT)
@example("a\0b\ud800\udfffc")
def test_storable_text_has_neither_nul_nor_surrogates(text: str) -> None:
    stored = storable(text)

    assert "\0" not in stored
    assert stored.encode().decode() == stored
    assert is_storable(stored)
    assert storable(stored) == stored
    assert len(stored) == len(text)


@given(ANY_TEXT)
@example("a\0b")
@example("\ud83d")
def test_is_storable_says_whether_anything_would_change(text: str) -> None:
    assert is_storable(text) is (storable(text) == text)


@given(ANY_TEXT)
@example("\x1b[2J\x9b31m\r\x7f\n\t")
def test_shown_text_has_no_control_but_newline_and_tab(text: str) -> None:
    controls = {char for char in shown(text) if unicodedata.category(char) in {"Cc", "Cs"}}

    assert controls <= {"\n", "\t"}


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"))))
def test_text_without_controls_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\rb", "a\\x0db"),
        ("\x9b", "\\x9b"),
        ("\x7f", "\\x7f"),
        ("\0", "\N{SYMBOL FOR NULL}"),
    ],
)
def test_controls_are_made_visible(text: str, visible: str) -> None:
    assert shown(text) == visible


def test_what_is_cut_off_is_said_in_words() -> None:
    assert clipped("x" * 100, 100) == "x" * 100
    assert clipped("x" * 1_234, 100) == "x" * (100 - 36) + "… [cut: 1,234 characters in all]".rjust(36, "x")
    assert clipped("x" * 101, 100, where="the run has them").endswith(
        "x… [cut: 101 characters in all, the run has them]"
    )
    assert {len(clipped("x" * length, 100)) for length in (100, 101, 10**6)} == {100}
