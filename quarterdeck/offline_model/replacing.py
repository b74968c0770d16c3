"""One replacement from search to verification, as a generator that yields steps and is sent the tools' results."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from quarterdeck.offline_model.conversation import Result
from quarterdeck.offline_model.instructions import Replacement
from quarterdeck.offline_model.search_results import Found, parse_content, parse_replaced
from quarterdeck.offline_model.searching import SearchFailedError, Step, first_line, in_turns, search
from quarterdeck.offline_model.toolbox import Toolbox

NAMED_FILES = 100


Script = Generator[Step, tuple[Result, ...], str]
Steps = Generator[Step, tuple[Result, ...], None]


@dataclass(slots=True)
class Outcome:
    """What became of one replacement. ``edited``: occurrences by path; ``failed``: the reason by path."""

    replacement: Replacement
    edited: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    _unsaid: list[str] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        return not self.failed and not self.problem

    def fail(self, path: str, reason: str) -> None:
        self.failed[path] = reason
        self._unsaid.append(f"Could not edit {path}: {reason}. ")

    def take_unsaid(self) -> str:
        """Return the failures that no step has told yet, to begin the next one with."""
        unsaid, self._unsaid = "".join(self._unsaid), []
        return unsaid


def replace_everywhere(replacement: Replacement, toolbox: Toolbox) -> Generator[Step, tuple[Result, ...], Outcome]:
    """Search, read, edit, and search again until no file is left that was not tried; each file is edited once.

    Once only, because the new text may hold the old one, so that the matches never end.
    """
    outcome = Outcome(replacement)
    if replacement.old == replacement.new:
        return outcome
    about = f"Replacing '{replacement.old}' with '{replacement.new}'"
    found = yield from _search(outcome, toolbox, f"{about}: searching for every occurrence first.")
    while pending := [path for path in found.paths if path not in outcome.edited | outcome.failed]:
        edited_before = len(outcome.edited)
        for paths in in_turns(pending, toolbox):
            readable = yield from _read(outcome, toolbox, paths)
            yield from _edit(outcome, toolbox, readable)
        if len(outcome.edited) == edited_before:
            break
        found = yield from _search(outcome, toolbox, f"{about}: searching again to verify.")
    if found.cut_off and not outcome.problem:
        outcome.problem = "the search's answer was cut off, so further files may hold the text"
    # A path that the last search no longer names was edited after all, or cut in two by a notice.
    outcome.failed = {path: reason for path, reason in outcome.failed.items() if path in found.paths}
    return outcome


def _search(outcome: Outcome, toolbox: Toolbox, text: str) -> Generator[Step, tuple[Result, ...], Found]:
    try:
        return (yield from search(outcome.replacement, toolbox, outcome.take_unsaid() + text))
    except SearchFailedError as error:
        outcome.problem = f"the search failed: {error}"
        return Found(())


def _read(
    outcome: Outcome, toolbox: Toolbox, paths: Sequence[str]
) -> Generator[Step, tuple[Result, ...], dict[str, int]]:
    """Return the occurrences by path (0 where only a part was shown) of the files that hold the text."""
    if "read_file" not in toolbox:
        return dict.fromkeys(paths, 0)
    calls = tuple(toolbox.call("read_file", path=path) for path in paths)
    results = yield Step(f"{outcome.take_unsaid()}Reading {', '.join(paths)}.", calls)
    readable: dict[str, int] = {}
    for path, result in zip(paths, results, strict=True):
        content = parse_content(result.text, outcome.replacement.old)
        if result.is_error:
            outcome.fail(path, first_line(result.text))
        elif content.occurrences or content.cut_off:
            readable[path] = content.occurrences
        else:
            outcome.fail(path, "the search found the text, but the file as read does not hold it")
    return readable


def _edit(outcome: Outcome, toolbox: Toolbox, readable: dict[str, int]) -> Steps:
    if not readable:
        return
    old, new = outcome.replacement.old, outcome.replacement.new
    calls = tuple(
        toolbox.call("edit_file", path=path, old_string=old, new_string=new, replace_all=True) for path in readable
    )
    results = yield Step(f"{outcome.take_unsaid()}Editing {', '.join(readable)}.", calls)
    for (path, occurrences), result in zip(readable.items(), results, strict=True):
        if result.is_error:
            outcome.fail(path, first_line(result.text))
        else:
            outcome.edited[path] = parse_replaced(result.text) or occurrences


def report(outcomes: Sequence[Outcome]) -> str:
    """Say for each replacement which files were changed and how often, and what could not be."""
    sentences = itertools.chain.from_iterable(_sentences(outcome) for outcome in outcomes)
    return " ".join((*sentences, "Nothing but these literal replacements was carried out."))


def _sentences(outcome: Outcome) -> Iterator[str]:
    old, new = outcome.replacement.old, outcome.replacement.new
    where = f" in {outcome.replacement.glob}" if outcome.replacement.glob else ""
    if outcome.edited:
        total = sum(outcome.edited.values())
        files = _listed([f"{path} ({count})" for path, count in outcome.edited.items()])
        yield (
            f"Replaced '{old}' with '{new}'{where}: {_counted(total, 'occurrence')} "
            f"in {_counted(len(outcome.edited), 'file')}: {files}."
        )
    elif old == new:
        yield f"'{old}' was to be replaced with itself: nothing to change."
    elif outcome.succeeded:
        yield f"'{old}' occurs nowhere{where}: nothing to change."
    if outcome.failed:
        files = _listed([f"{path} ({reason})" for path, reason in outcome.failed.items()])
        yield f"Could not replace '{old}' in {files}."
    if outcome.problem:
        yield f"Replacing '{old}' may be incomplete: {outcome.problem}."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
    return ", ".join(names[:NAMED_FILES]) + more


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
