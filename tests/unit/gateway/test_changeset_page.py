"""The page shows what a repository and a model wrote as text, never as markup."""

from datetime import UTC, datetime
from uuid import uuid4

from services.contracts.rest import Changeset, FileStat
from services.contracts.words import ChangesetState, Checks, Mergeable, Publish, Review
from services.gateway.web.changeset import MAX_SHOWN_BYTES, render

ATTACK = "<img src=x onerror=alert(1)>\x1b[31m"


def changeset(*, is_draft: bool = False, verified: bool | None = None) -> Changeset:
    return Changeset(
        id=uuid4(),
        job_id=uuid4(),
        run_id=uuid4(),
        state=ChangesetState.FAILED,
        repository=ATTACK,
        branch=ATTACK,
        base_sha="b",
        base_branch=None,
        commit_sha="c",
        files=[FileStat(path=ATTACK, change="modified", insertions=3, deletions=2, binary=False)],
        insertions=3,
        deletions=2,
        url=None,
        error=ATTACK,
        publish=Publish.PULL_REQUEST,
        forge=None,
        number=None,
        superseded_by=None,
        head_sha=None,
        checks=Checks.NONE,
        review=Review.NONE,
        mergeable=Mergeable.UNKNOWN,
        merge_sha=None,
        observed_at=None,
        closed_at=None,
        is_draft=is_draft,
        verified=verified,
        created_at=datetime.now(UTC),
        published_at=None,
    )


def test_nothing_that_was_written_elsewhere_is_markup():
    page = render(changeset(), f"+{ATTACK}\n".encode() + b"\xff")
    assert "<img" not in page
    assert "\x1b" not in page
    assert page.count("&lt;img") == 7


def test_lines_are_coloured_by_what_they_are():
    page = render(changeset(), b"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n same\n-old\n+new\n")
    for line in (
        "<span class=file>--- a/a</span>",
        "<span class=hunk>@@ -1 +1 @@</span>",
        "\n same\n",
        "<span class=minus>-old</span>",
        "<span class=plus>+new</span>",
    ):
        assert line in page


def test_a_long_diff_is_cut_and_says_where_all_of_it_is():
    whole = changeset()
    page = render(whole, b"+x\n" * MAX_SHOWN_BYTES)
    assert f"quarterdeck diff {whole.run_id}" in page
    assert "quarterdeck diff" not in render(whole, b"+x\n")


def test_a_draft_and_what_came_of_its_tests_are_shown():
    page = render(changeset(is_draft=True, verified=False), b"")
    assert "failed, as a draft" in page
    assert "<dt>Tests</dt><dd>failed: this change is unverified</dd>" in page
    assert "<dt>Tests</dt><dd>passed</dd>" in render(changeset(verified=True), b"")
    plain = render(changeset(), b"")
    assert "draft" not in plain
    assert "<dt>Tests</dt>" not in plain
