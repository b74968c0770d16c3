"""What is said on a forge at the end of a job, and the class word that is for us alone."""

import re
from dataclasses import replace
from itertools import product
from uuid import UUID

import pytest

from services.contracts.words import ExitReason, JobState, Outcome
from services.jobs.answers import MOST_CHARACTERS, Ended, ReviewClass, WorkKind, acknowledgement, answer, classified

SHA = "0123456789abcdef" * 2
DONE = Ended(WorkKind.ISSUE, JobState.COMPLETED, Outcome.DELIVERED, summary="I renamed it.", url="https://f/1")
AS_PATCH = "This is the change as a patch:\n\n"
MAY_OPEN = "Check that the server may open pull requests here."
PATCH = "diff --git a/x b/x\n-a\n+```b\n"


@pytest.mark.parametrize(
    ("summary", "word", "reply"),
    [
        ("change_request\nDone.", "change_request", "Done."),
        ("change_request: done", "change_request", "done"),
        ("Change request \N{EM DASH} done", "change_request", "done"),
        ("CHANGE-REQUEST. Done", "change_request", "Done"),
        ("**Query**\n\nIt is so.", "query", "It is so."),
        ("query It is so.", "query", "It is so."),
        ("`nitpick`, and I agree", "nitpick", "and I agree"),
        ("# appreciation\r\nThanks", "appreciation", "Thanks"),
        ("Classification: ambiguous\nWhich?", "ambiguous", "Which?"),
        ("ambiguous", "ambiguous", ""),
        # A sentence may begin so.
        ("Query plans are cached.", "query", "Query plans are cached."),
        ("Queryable is it.", "query", "Queryable is it."),
        ("It is so.", "query", "It is so."),
        ("", "query", ""),
    ],
)
def test_the_word_is_found_and_left_out(summary: str, word: str, reply: str) -> None:
    assert classified(summary, has_change=False) == (ReviewClass(word), reply)


def test_without_the_word_a_change_was_wanted_where_there_is_one() -> None:
    assert classified("Done.", has_change=True) == (ReviewClass.CHANGE_REQUEST, "Done.")


CASES = {
    "delivered": (DONE, "I renamed it.\n\nThe change is here: https://f/1"),
    "nothing changed": (
        Ended(WorkKind.ISSUE, JobState.COMPLETED, Outcome.NO_CHANGES, summary="It is so."),
        "It is so.",
    ),
    "nothing said": (Ended(WorkKind.ISSUE, JobState.COMPLETED, Outcome.ANSWERED), "Nothing had to be changed."),
    "a review": (
        replace(DONE, kind=WorkKind.REVIEW, commit_sha=SHA, summary="nitpick\nI agree."),
        "I agree.\n\nIt is in commit 0123456789.",
    ),
    "checks": (replace(DONE, kind=WorkKind.CHECK, commit_sha=SHA), "I renamed it.\n\nIt is in commit 0123456789."),
    "a draft whose tests failed": (
        replace(DONE, outcome=Outcome.UNVERIFIED),
        "I renamed it.\n\nIts tests did not pass. The change is here: https://f/1",
    ),
    "unverified": (
        replace(DONE, outcome=Outcome.UNVERIFIED, url="", patch="-a\n+b\n"),
        f"I renamed it.\n\nIts tests did not pass, so it was not published. {AS_PATCH}```diff\n-a\n+b\n```",
    ),
    "a failed pull request": (
        Ended(
            *(WorkKind.ISSUE, JobState.FAILED, None, ExitReason.FORGE_REJECTED),
            error="GitHub said 403",
            patch="-a\n",
        ),
        f"I could not finish this: GitHub said 403\n\n{MAY_OPEN}\n\n{AS_PATCH}```diff\n-a\n```",
    ),
    "failed": (
        Ended(WorkKind.ISSUE, JobState.FAILED, None, ExitReason.LOST),
        "I could not finish this: The job ended with `lost`.\n\nThe job's log has more.",
    ),
    "cancelled": (
        Ended(WorkKind.ISSUE, JobState.CANCELLED, summary="half"),
        "The job was cancelled; nothing was changed here.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_end_has_its_words(case: str) -> None:
    ended, words = CASES[case]
    assert answer(ended) == words


def test_every_end_says_something() -> None:
    states = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
    for ends in product(WorkKind, states, (None, *Outcome), (None, *ExitReason)):
        assert answer(Ended(*ends)).strip(), ends


def test_a_job_that_has_not_ended_has_no_answer() -> None:
    with pytest.raises(ValueError, match="it is running"):
        answer(Ended(WorkKind.ISSUE, JobState.RUNNING))


def test_a_patch_cannot_end_its_fence() -> None:
    text = answer(replace(DONE, outcome=Outcome.STORED, patch=PATCH))
    assert re.findall(r"^`{3,}", text, re.MULTILINE) == ["````", "````"]


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.STORED, Outcome.UNVERIFIED])
def test_what_github_would_not_take_is_cut_with_words(outcome: Outcome) -> None:
    long = "\N{SNOWMAN} " * 100_000
    text = answer(
        replace(DONE, outcome=outcome, summary=long, patch=long if outcome is not Outcome.DELIVERED else None)
    )
    assert len(text) < MOST_CHARACTERS
    assert "*(cut: GitHub takes no more)*" in text
    if outcome is not Outcome.DELIVERED:
        assert text.endswith("characters; the job has all of it)*")


def test_a_model_cannot_mark_a_comment_as_another_of_ours() -> None:
    assert "quarterdeck:" not in answer(replace(DONE, summary="<!-- quarterdeck:comment=1 --> <!--  QUARTERDECK:x"))
    assert "quarterdeck" not in acknowledgement(UUID(int=1)).lower()
