"""Titles, bodies and searches as they are sent, checks and reviews as they are read."""

import pytest

from services.contracts.words import Checks, Publish, Review
from services.vcs.forges import MOST_BODY, PublishedChange, RepositoryQuery
from services.vcs.forges.github import answers
from services.vcs.forges.github.answers import Account, CheckRun, CombinedStatus
from services.vcs.forges.github.listing import search_words
from services.vcs.forges.github.opening import MOST_TITLE, body_of, title_of
from services.vcs.forges.github.status import checks_word, combined_word, review_word, run_word
from services.vcs.git.repositories import parse_repository

MARKER = "<!-- quarterdeck:changeset=cs-1 -->"


def _change(*, title: str = "", body: str = "") -> PublishedChange:
    repository = parse_repository("https://github.com/a/b", allow_local=False)
    return PublishedChange("cs-1", repository, "fix-1", "main", "0" * 40, title, body, Publish.PULL_REQUEST)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("Fix it", "Fix it"),
        ("Fix\r\n it ", "Fix it"),
        (" ", "fix-1"),
        ("é" * MOST_TITLE, "é" * MOST_TITLE),
        ("é" * (MOST_TITLE + 1), "é" * (MOST_TITLE - 1) + "…"),
    ],
)
def test_a_title_is_one_line_that_github_takes(given: str, sent: str) -> None:
    assert title_of(_change(title=given)) == sent


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("What and why.\r\n", f"What and why.\n\n{MARKER}"),
        ("", MARKER),
        ("Forged <!-- quarterdeck:changeset=cs-2 --> here", f"Forged  here\n\n{MARKER}"),
        (f"Ours again\n\n{MARKER}", f"Ours again\n\n{MARKER}"),
    ],
)
def test_a_body_ends_with_the_marker_and_holds_no_other(given: str, sent: str) -> None:
    assert body_of(_change(body=given)) == sent


def test_a_body_is_cut_to_what_github_takes() -> None:
    body = body_of(_change(body="x" * MOST_BODY))
    assert len(body) == MOST_BODY
    assert body.endswith(f"no more)*\n\n{MARKER}")


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (CheckRun(status="queued"), Checks.PENDING),
        (CheckRun(status="in_progress"), Checks.PENDING),
        (CheckRun(status="waiting"), Checks.PENDING),
        *[
            (CheckRun(status="completed", conclusion=good), Checks.PASSING)
            for good in ("success", "neutral", "skipped")
        ],
        *[
            (CheckRun(status="completed", conclusion=bad), Checks.FAILING)
            for bad in ("failure", "cancelled", "timed_out", "action_required", "startup_failure", "stale", None)
        ],
    ],
)
def test_a_check_run(run: CheckRun, word: Checks) -> None:
    assert run_word(run) is word


@pytest.mark.parametrize(
    ("state", "count", "word"),
    [
        ("pending", 0, Checks.NONE),
        ("pending", 1, Checks.PENDING),
        ("success", 1, Checks.PASSING),
        ("failure", 1, Checks.FAILING),
        ("error", 1, Checks.FAILING),
    ],
)
def test_commit_statuses(state: str, count: int, word: Checks) -> None:
    assert combined_word(CombinedStatus(state=state, total_count=count)) is word


def test_checks_together() -> None:
    every = [Checks.NONE, Checks.PASSING, Checks.PENDING, Checks.FAILING]
    assert [checks_word(every[:most]) for most in range(5)] == [Checks.NONE, *every]


def _review(login: str | None, state: str) -> answers.Review:
    return answers.Review(state=state, user=Account(login=login) if login else None)


@pytest.mark.parametrize(
    ("reviews", "word"),
    [
        ([], Review.NONE),
        ([("a", "COMMENTED"), ("b", "PENDING")], Review.NONE),
        ([("a", "APPROVED"), ("a", "COMMENTED")], Review.APPROVED),
        ([("a", "CHANGES_REQUESTED"), ("b", "APPROVED")], Review.CHANGES_REQUESTED),
        ([("a", "CHANGES_REQUESTED"), ("b", "APPROVED"), ("a", "DISMISSED")], Review.APPROVED),
        ([("a", "APPROVED"), ("a", "DISMISSED")], Review.NONE),
        ([(None, "APPROVED")], Review.APPROVED),
    ],
)
def test_reviews(reviews: list[tuple[str | None, str]], word: Review) -> None:
    assert review_word([_review(login, state) for login, state in reviews]) is word


def test_a_search_holds_what_else_was_asked() -> None:
    query = RepositoryQuery(owner="acme", topics=["cli", "web"], search="stars:>5 in:name tool")
    assert search_words(query) == "stars:>5 in:name tool user:acme topic:cli topic:web archived:false"
    query = RepositoryQuery(search="tool", include_archived=True, include_forks=True)
    assert search_words(query) == "tool fork:true"
