"""Finds all files that hold a text, also where one search's answer is too long and is cut off. A generator of steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from quarterdeck.offline_model.conversation import Call, Result
from quarterdeck.offline_model.instructions import Replacement
from quarterdeck.offline_model.search_results import Found, Listing, escape, parse_listing, parse_search
from quarterdeck.offline_model.toolbox import Toolbox

SEARCH_RESULTS = 1_000
LISTED_ENTRIES = 10_000
CALLS_PER_TURN = 4
ROUNDS = 8
"""However many calls there are, they are made in at most this many turns, far from the usual limit of 100."""


@dataclass(frozen=True, slots=True)
class Step:
    """One reply: what it says, and the tools it asks for at once."""

    text: str
    calls: tuple[Call, ...] = ()


class SearchFailedError(Exception):
    """A search or listing answered with an error; the message is the tool's."""


def search(wanted: Replacement, toolbox: Toolbox, text: str) -> Generator[Step, tuple[Result, ...], Found]:
    """Search everywhere; where the answer is cut off, search what is in the directories one by one.

    Raises ``SearchFailedError``.
    """
    (result,) = yield Step(text, (_search_call(wanted, toolbox),))
    found = parse_search(_text(result), wanted.old)
    if found.cut_off and "list_files" in toolbox:
        found = yield from _descend(wanted, toolbox)
    # A search of one file, and one whose schema knows no glob, looks at more than is wanted.
    return Found(tuple(path for path in found.paths if wanted.covers(path)), found.cut_off)


def _descend(wanted: Replacement, toolbox: Toolbox) -> Generator[Step, tuple[Result, ...], Found]:
    paths: list[str] = []
    cut_off = False
    directories = ["."]
    while directories:
        listing = yield from _list(directories, toolbox)
        cut_off = cut_off or listing.cut_off
        directories = []
        wanted_entries = [entry for entry in listing.entries if entry.endswith("/") or wanted.covers(entry)]
        for entries in in_turns(wanted_entries, toolbox):
            calls = tuple(_search_call(wanted, toolbox, path=entry) for entry in entries)
            results = yield Step("The answer was cut off, so each part is searched by itself.", calls)
            for entry, result in zip(entries, results, strict=True):
                found = parse_search(_text(result), wanted.old)
                if not entry.endswith("/"):
                    paths += [entry] if found.paths else []
                elif found.cut_off:
                    directories.append(entry)
                else:
                    paths += found.paths
    return Found(tuple(paths), cut_off)


def _list(directories: Sequence[str], toolbox: Toolbox) -> Generator[Step, tuple[Result, ...], Listing]:
    entries: list[str] = []
    cut_off = False
    for group in in_turns(directories, toolbox):
        calls = tuple(toolbox.call("list_files", directory=path, limit=LISTED_ENTRIES) for path in group)
        results = yield Step(f"Listing {', '.join(group)} to search in parts.", calls)
        for listing in (parse_listing(_text(result)) for result in results):
            entries += listing.entries
            cut_off = cut_off or listing.cut_off
    return Listing(tuple(entries), cut_off)


def _search_call(wanted: Replacement, toolbox: Toolbox, path: str | None = None) -> Call:
    # A worktree is a fresh checkout: what .gitignore leaves out of it and is there all the same is tracked.
    is_file = path is not None and not path.endswith("/")
    return toolbox.call(
        "search_code",
        pattern=escape(wanted.old),
        path=path,
        glob=wanted.glob,
        max_results=1 if is_file else SEARCH_RESULTS,
        include_ignored=True,
    )


def in_turns(items: Sequence[str], toolbox: Toolbox) -> Iterator[Sequence[str]]:
    """Split ``items`` into what is asked for in one turn: a few each, more where there are many; one if it must."""
    size = max(CALLS_PER_TURN, -(-len(items) // ROUNDS)) if toolbox.may_call_several else 1
    return (items[start : start + size] for start in range(0, len(items), size))


def _text(result: Result) -> str:
    if result.is_error:
        raise SearchFailedError(first_line(result.text))
    return result.text


def first_line(text: str) -> str:
    """Return the first line of a tool's error, without its full stop, at most 200 characters."""
    return (text.strip().splitlines() or ["no reason given"])[0][:200].rstrip(".")
