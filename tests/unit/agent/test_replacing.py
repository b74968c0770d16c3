import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.tools.calls import ToolError
from services.agent.tools.replacing import replaced

SMALL = st.text(alphabet="ab\n ", max_size=30)
PIECE = st.text(alphabet="ab\n ", min_size=1, max_size=3)


def edited(text: str, old: str, new: str, *, replace_all: bool = False) -> str:
    return replaced(text, old, new, replace_all=replace_all, path="f")[0]


def starts(text: str, wanted: str) -> int:
    return sum(text.startswith(wanted, at) for at in range(len(text)))


@given(SMALL, PIECE, SMALL)
def test_replace_all_is_what_str_replace_does(text: str, old: str, new: str) -> None:
    if old == new or old not in text:
        with pytest.raises(ToolError):
            edited(text, old, new, replace_all=True)
    else:
        result, count = replaced(text, old, new, replace_all=True, path="f")
        assert result == text.replace(old, new)
        assert count == text.count(old)


@given(SMALL, PIECE, SMALL)
def test_one_replacement_needs_exactly_one_place(text: str, old: str, new: str) -> None:
    if old != new and starts(text, old) == 1:
        assert edited(text, old, new) == text.replace(old, new)
    else:
        with pytest.raises(ToolError):
            edited(text, old, new)


@given(st.lists(st.text(alphabet="ab ", max_size=5), min_size=1, max_size=6), PIECE, SMALL)
def test_a_crlf_file_is_edited_as_it_is_shown_and_stays_one(lines: list[str], old: str, new: str) -> None:
    shown = "".join(f"{line}\n" for line in lines)
    try:
        expected = edited(shown, old, new)
    except ToolError:
        with pytest.raises(ToolError):
            edited(shown.replace("\n", "\r\n"), old, new)
    else:
        assert edited(shown.replace("\n", "\r\n"), old, new) == expected.replace("\n", "\r\n")


def test_mixed_line_ends_are_matched_exactly() -> None:
    assert edited("a\r\nb\nc", "b\n", "d\n") == "a\r\nd\nc"
    with pytest.raises(ToolError, match="white space"):
        edited("a\r\nb\nc", "a\nb", "x")


def test_a_byte_order_mark_stays_first() -> None:
    assert edited("\ufeffa\n", "a", "b") == "\ufeffb\n"
    assert edited("\ufeffa\n", "a\n", "x\na\n") == "\ufeffx\na\n"


@pytest.mark.parametrize(
    ("text", "old", "new", "words"),
    [
        ("abc", "", "x", "empty"),
        ("abc", "b", "b", "the same"),
        ("a a a", "a", "b", "occurs 3 times"),
        ("aaa", "aa", "b", "occurs 2 times"),
        ("a" * 5_000, "a", "b", "more than 1000 times"),
        ("def  run( self ):\n", "def run(self):", "x", "white space"),
        ("one\ndef running(self):\nthree", "def runing(self):", "x", r"nearest line is 2: def running\(self\):"),
        ("alpha\nbeta", "zzzz 999", "x", "Nothing like it"),
        ("", "x", "y", "Nothing like it"),
        ("abc", "  \n ", "x", "Nothing like it"),
    ],
)
def test_a_refusal_says_what_to_do(text: str, old: str, new: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        edited(text, old, new)


def test_a_replacement_that_would_not_fit_into_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(ToolError, match="larger than 1 MB"):
        edited("a" * 1_000_000, "a", "b" * 1_000_000, replace_all=True)


@pytest.mark.parametrize(
    "text", ["word " * 200_000, "some line with words alpha beta\n" * 32_000, ("x" * 199 + "\n") * 5_000]
)
def test_a_hint_in_a_large_file_does_not_hold_up_the_event_loop(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ToolError):
        edited(text, "some lin wth words alpa beta" + "xy" * 100, "y")
    assert time.process_time() - started < 0.5
