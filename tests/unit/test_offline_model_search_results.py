"""What the offline model reads out of the tools' answers."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.offline_model.search_results import (
    escape,
    parse_content,
    parse_listing,
    parse_replaced,
    parse_search,
)


def test_matches_by_file_in_order() -> None:
    found = parse_search("b.py:3:old\na dir/a.py:10:x = old: 12:\nb.py:7:old old", "old")

    assert found.paths == ("b.py", "a dir/a.py")
    assert not found.cut_off


def test_context_lines_are_no_matches() -> None:
    assert parse_search("a.py-2-see b.py:3:here\na.py:3:old\na.py-4-end", "old").paths == ("a.py",)


def test_a_match_cut_before_the_text_is_one() -> None:
    assert parse_search("a.py:3:xxxxxxxx [... omitted]", "old").paths == ("a.py",)


@pytest.mark.parametrize(
    "notice",
    [
        "[truncated: 12 more matches]",
        "[at least 1,234 more matches left out]",
        "[… 12,345 characters left out …]",
        "Nothing that was asked for was found before the search had to stop: narrow it.",
    ],
)
def test_a_notice_says_that_there_is_more(notice: str) -> None:
    found = parse_search(f"a.py:1:old\n{notice}", "old")

    assert found.paths == ("a.py",)
    assert found.cut_off


@pytest.mark.parametrize(
    "answer", ["", "No matches.", "No matches. Files that .gitignore leaves out were not looked at"]
)
def test_no_match(answer: str) -> None:
    found = parse_search(answer, "old")

    assert found.paths == ()
    assert not found.cut_off


def test_line_numbers_and_notices_do_not_count_as_content() -> None:
    content = parse_content("1\tone 1\n2\t11\n[lines 1-2 of 2]", "1")

    assert content.occurrences == 3
    assert not content.cut_off


def test_content_without_line_numbers() -> None:
    assert parse_content("old\nold old", "old").occurrences == 3


@pytest.mark.parametrize(
    "shown", ["1\ta\n[… 900 characters left out …]\n9\tb", "1\taaa [… the rest of this line is left out]"]
)
def test_content_that_is_shown_in_part(shown: str) -> None:
    assert parse_content(shown, "old").cut_off


def test_listing() -> None:
    listing = parse_listing(".git/\nsrc/\na b.txt\nlink@\n[12 more entries left out]")

    assert listing.entries == ("src/", "a b.txt")
    assert listing.cut_off
    assert parse_listing("No files.").entries == ()


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("Replaced 3 places in 'a'.", 3),
        ("1 occurrence replaced", 1),
        ("Edited a.py (12 replacements)", 12),
        ("OK", None),
    ],
)
def test_how_often_an_edit_replaced(answer: str, count: int | None) -> None:
    assert parse_replaced(answer) == count


@given(st.text(min_size=1))
def test_an_escaped_literal_matches_itself_alone(literal: str) -> None:
    assert re.fullmatch(escape(literal), literal)
    assert not re.fullmatch(escape(literal), literal + "x")


def test_only_what_ripgrep_lets_escape_is_escaped() -> None:
    assert escape("a-b <c> #d~'e' /f") == "a-b <c> #d~'e' /f"
    assert escape(r"a.b(c)[d]{e}*+?^$|\n") == r"a\.b\(c\)\[d\]\{e\}\*\+\?\^\$\|\\n"
