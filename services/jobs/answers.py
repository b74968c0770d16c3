"""What is said on a forge about a job that came from there, at its beginning and at its end. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

from services.contracts.words import ExitReason, JobState, Outcome

MOST_CHARACTERS: Final = 65_536
"""What GitHub takes in a comment."""
_ROOM: Final = 1_000
"""Kept free for what the vcs adds, such as the hidden mark by which it finds the comment again."""
_MOST_SUMMARY: Final = 20_000
_CUT: Final = "\n\n*(cut: GitHub takes no more)*"
_HIDDEN: Final = re.compile(r"<!--\s*quarterdeck:", re.IGNORECASE)
_SHORT_SHA: Final = 10
_HINTS: Final = {
    ExitReason.CLONE_FAILED: "Check that the server may read this repository.",
    ExitReason.PUSH_REJECTED: "Check that the server may push to this repository, and that nobody else pushed to the "
    "branch.",
    ExitReason.FORGE_REJECTED: "Check that the server may open pull requests here.",
    ExitReason.MODEL_UNAVAILABLE: "The model service was away; ask again later.",
    ExitReason.MODEL_REJECTED: "Check the server's key for the model service.",
    ExitReason.BUDGET_EXHAUSTED: "It used as much as it may; ask for less at once, or for a higher budget.",
    ExitReason.MAX_TURNS: "It took as many turns as it may; ask for less at once.",
    ExitReason.TIMED_OUT: "It took as long as it may; ask for less at once.",
    ExitReason.BLOCKED: "Say more about what is wanted.",
}
_ANY_HINT: Final = "The job's log has more."


class WorkKind(StrEnum):
    """What on a forge became a job."""

    ISSUE = "issue"
    REVIEW = "review"
    """A comment on a pull request of ours."""
    CHECK = "check"
    """A check of a pull request of ours that failed."""


class ReviewClass(StrEnum):
    """What a comment on a pull request wants, as the model says in the first word of its summary."""

    CHANGE_REQUEST = "change_request"
    QUERY = "query"
    NITPICK = "nitpick"
    APPRECIATION = "appreciation"
    AMBIGUOUS = "ambiguous"


_CLASS: Final = re.compile(
    r"[\s*_`#>\[(\"']*(?:class(?:ification)?\s*:\s*[*_`\"']*\s*)?(?P<word>"
    + "|".join(each.value.replace("_", "[ _-]?") for each in ReviewClass)
    + r")(?![A-Za-z0-9_-])[*_`\])\"']*(?P<end>[ \t]*(?:[:.,;\u2014\u2013-]|\r?\n|$))?[\s:.,;\u2014\u2013-]*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Ended:
    """A job at its end. ``patch``: the beginning, at least, of a change that no forge shows."""

    kind: WorkKind
    state: JobState
    outcome: Outcome | None = None
    exit_reason: ExitReason | None = None
    error: str = ""
    summary: str = ""
    url: str = ""
    commit_sha: str = ""
    patch: str | None = None


def acknowledgement(job_id: UUID) -> str:
    """What is said at once about an issue that is taken on."""
    return f"I am working on this issue, and will answer here when I am done.\n\nJob `{job_id}`"


def answer(ended: Ended) -> str:
    """What is said at the end, in Markdown, within what GitHub takes."""
    text = _HIDDEN.sub("<!-- ", _words(ended)).strip()
    most = MOST_CHARACTERS - _ROOM
    return text if len(text) <= most else text[: most - len(_CUT)] + _CUT


def classified(summary: str, *, has_change: bool) -> tuple[ReviewClass, str]:
    """What a comment wanted, and the reply to it: ``summary`` without the word that says so.

    Without such a word it is a change request where something was changed, else a query.
    """
    found = _CLASS.match(summary)
    # A sentence may begin with such a word, too.
    if found is None or (found["end"] is None and not found["word"].islower()):
        return (ReviewClass.CHANGE_REQUEST if has_change else ReviewClass.QUERY), summary.strip()
    word = re.sub(r"[ -]", "_", found["word"].lower())
    known = {each.value.replace("_", ""): each for each in ReviewClass}
    return known[word.replace("_", "")], summary[found.end() :].strip()


def _words(ended: Ended) -> str:
    match ended.state:
        case JobState.COMPLETED:
            return _completed(ended)
        case JobState.FAILED:
            return _failed(ended)
        case JobState.CANCELLED:
            return "The job was cancelled; nothing was changed here."
        case JobState.QUEUED | JobState.RUNNING | JobState.CANCELLING:
            raise ValueError(f"the job has not ended: it is {ended.state}")
        case _:
            assert_never(ended.state)


def _completed(ended: Ended) -> str:
    reply = _reply(ended)
    match ended.outcome:
        case Outcome.DELIVERED:
            return f"{reply}\n\n{_where(ended)}"
        case Outcome.UNVERIFIED if ended.patch is None:
            return f"{reply}\n\nIts tests did not pass. {_where(ended)}"
        case Outcome.UNVERIFIED:
            return f"{reply}\n\nIts tests did not pass, so it was not published. {_fenced(ended)}"
        case Outcome.STORED:
            return f"{reply}\n\n{_fenced(ended)}"
        case Outcome.NO_CHANGES | Outcome.ANSWERED | Outcome.SKIPPED | None:
            return reply or "Nothing had to be changed."
        case _:
            assert_never(ended.outcome)


def _failed(ended: Ended) -> str:
    why = ended.error.strip() or f"The job ended with `{ended.exit_reason or ExitReason.INTERNAL}`."
    hint = _HINTS.get(ended.exit_reason, _ANY_HINT) if ended.exit_reason else _ANY_HINT
    words = f"I could not finish this: {why[:_MOST_SUMMARY]}\n\n{hint}"
    return f"{words}\n\n{_fenced(ended)}" if ended.patch else words


def _reply(ended: Ended) -> str:
    """What the model says, without the word that is for us alone."""
    summary = ended.summary.strip()
    if ended.kind is WorkKind.REVIEW:
        _, summary = classified(summary, has_change=bool(ended.commit_sha))
    return summary if len(summary) <= _MOST_SUMMARY else summary[:_MOST_SUMMARY] + _CUT


def _where(ended: Ended) -> str:
    if ended.kind is WorkKind.ISSUE:
        return f"The change is here: {ended.url}" if ended.url else "The change is on a branch of its own."
    return f"It is in commit {ended.commit_sha[:_SHORT_SHA]}."


def _fenced(ended: Ended) -> str:
    """The patch, cut where GitHub would not take it whole."""
    patch = (ended.patch or "").rstrip("\n")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", patch)), default=0))
    room = MOST_CHARACTERS - _ROOM - 2 * _MOST_SUMMARY - 2 * len(fence)
    cut = "" if len(patch) <= room else f"\n\n*(cut after {room:,} characters; the job has all of it)*"
    return f"This is the change as a patch:\n\n{fence}diff\n{patch[:room]}\n{fence}{cut}"
