"""Reads what `search_code`, `read_file` and `edit_file` answer. Pure, and tolerant of notices."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MATCH_LINE = re.compile(r"(?P<path>.+?):\d+:(?P<text>.*)")
_CONTEXT_LINE = re.compile(r".+?-\d+-")
_CUT_OFF = re.compile(
    r"^\W*(?:\w+\W+){0,12}?"
    r"(?:truncated|omitted|cut off|left out|not shown|had to stop|more (?:matches|results|lines|entries))\b",
    re.IGNORECASE,
)
_CUT_LINE = re.compile(r"\[[^\[\]]*(?:left out|truncated|omitted)[^\[\]]*\]$", re.IGNORECASE)
_LINE_NUMBER = re.compile(r"^ *\d+\t")
_COUNT = re.compile(r"\b(\d+) (?:occurrence|replacement|match|place|time)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """``paths``: the files with a match, in the search's order. ``cut_off``: there may be more."""

    paths: tuple[str, ...]
    cut_off: bool = False


def parse_search(output: str, literal: str) -> Found:
    """Read lines of the form ``path:line:text``; context lines (``path-line-text``) and notices are no matches."""
    paths: dict[str, None] = {}
    cut_off = False
    for line in output.splitlines():
        match = _MATCH_LINE.fullmatch(line)
        if match is None:
            cut_off = cut_off or _CUT_OFF.match(line) is not None
        elif literal in match["text"] or not _CONTEXT_LINE.match(line):
            # A long line may be cut before the literal, so its absence alone does not make a context line.
            paths[match["path"]] = None
    return Found(tuple(paths), cut_off)


@dataclass(frozen=True, slots=True)
class Content:
    """How often a file as shown holds a literal; ``cut_off``: only part of the file was shown."""

    occurrences: int
    cut_off: bool


def parse_content(output: str, literal: str) -> Content:
    """Count ``literal`` in a file's text, with or without line numbers in front (``12<tab>text``)."""
    lines = output.splitlines()
    # Where lines are numbered, the others are notices.
    numbered = [line.split("\t", 1)[1] for line in lines if _LINE_NUMBER.match(line)]
    return Content(
        sum(line.count(literal) for line in numbered or lines),
        any(_CUT_OFF.match(line) or _CUT_LINE.search(line) for line in lines),
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """Paths from the root; a directory's ends in ``/``."""

    entries: tuple[str, ...]
    cut_off: bool


def parse_listing(output: str) -> Listing:
    """Read `list_files`' answer, one path a line; leaves out symbolic links (``name@``) and Git's own directory."""
    lines = output.splitlines()
    notices = {line for line in lines if _CUT_OFF.match(line)}
    left_out = {*notices, ".git", ".git/", "No files.", ""}
    entries = tuple(line for line in lines if line not in left_out and not line.endswith("@"))
    return Listing(entries, bool(notices))


def parse_replaced(output: str) -> int | None:
    """Return the number that `edit_file` says it replaced, if it says one."""
    found = _COUNT.search(output)
    return int(found[1]) if found else None


def escape(literal: str) -> str:
    r"""Escape ``literal`` for a regular expression, Python's and ripgrep's (where `\<` would be a word boundary)."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", literal)
