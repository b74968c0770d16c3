"""What the emulated GitHub says of a change comes out in our words, and is asked for without cost where it can be."""

import pytest

from services.contracts.words import Checks, Mergeable, Publish, Review
from services.vcs.errors import ForgeNotFoundError
from services.vcs.forges import ChangeState
from services.vcs.forges.github import GitHubForge
from tests.integration.vcs.github.conftest import BRANCH, Work
from tests.integration.vcs.github.faults import FaultProxy


async def test_a_new_one(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published(publish=Publish.DRAFT))
    status = await forge.look_up(work.ref(opened))
    assert (status.state, status.number, status.url) == (ChangeState.OPEN, opened.number, opened.url)
    assert (status.is_draft, status.head_sha, status.merge_sha) == (True, work.sha, "")
    assert (status.checks, status.review, status.mergeable) == (Checks.NONE, Review.NONE, Mergeable.YES)


async def test_without_its_number_it_is_found_by_its_head(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    assert (await forge.look_up(work.ref())).number == opened.number


async def test_a_branch_alone_is_no_earlier_pull_request_from_it(forge: GitHubForge, work: Work) -> None:
    earlier = await forge.open(work.published())
    await forge.close(work.ref(earlier), comment="", delete_branch=False)
    assert (await forge.look_up(work.ref())).state is ChangeState.CLOSED, "of the very commit it is"

    sha = await work.emulate.ada.push(work.full_name, BRANCH)

    status = await forge.look_up(work.ref(commit_sha=sha))
    assert (status.state, status.number, status.head_sha) == (ChangeState.OPEN, None, sha)


async def test_checks_go_from_pending_over_passing_to_failing(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    for name, conclusion, word in [
        ("build", None, Checks.PENDING),
        ("build", "success", Checks.PASSING),
        ("docs", "skipped", Checks.PASSING),
        ("lint", "failure", Checks.FAILING),
    ]:
        if name == "build" and conclusion:
            (run,) = (await work.emulate.ada.ask("GET", f"/repos/{work.full_name}/commits/{work.sha}/check-runs"))[
                "check_runs"
            ]
            ended = {"status": "completed", "conclusion": conclusion}
            await work.emulate.ada.ask("PATCH", f"/repos/{work.full_name}/check-runs/{run['id']}", ended)
        else:
            await work.emulate.ada.check(work.full_name, work.sha, name, conclusion)
        assert (await forge.look_up(work.ref(opened))).checks is word, name


async def test_scripted_commit_statuses_count_too(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    """The emulator has no commit statuses."""
    opened = await forge.open(work.published())
    await work.emulate.ada.check(work.full_name, work.sha, "build", "success")
    proxy.answer("GET", r"/commits/\w+/status$", 200, {"state": "pending", "total_count": 1})
    assert (await forge.look_up(work.ref(opened))).checks is Checks.PENDING
    proxy.answer("GET", r"/commits/\w+/status$", 200, {"state": "error", "total_count": 2})
    assert (await forge.look_up(work.ref(opened))).checks is Checks.FAILING


async def test_the_last_review_of_each_reviewer_counts(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    number = opened.number or 0
    ada, grace = work.emulate.ada, work.emulate.grace
    for person, event, word in [
        (grace, "COMMENT", Review.NONE),
        (grace, "APPROVE", Review.APPROVED),
        (ada, "REQUEST_CHANGES", Review.CHANGES_REQUESTED),
        (ada, "COMMENT", Review.CHANGES_REQUESTED),
        (ada, "APPROVE", Review.APPROVED),
    ]:
        await person.review(work.full_name, number, event)
        assert (await forge.look_up(work.ref(opened))).review is word


async def test_pages_are_followed(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    for _ in range(100):
        await work.emulate.grace.review(work.full_name, opened.number or 0, "COMMENT")
    await work.emulate.grace.review(work.full_name, opened.number or 0, "APPROVE")
    assert (await forge.look_up(work.ref(opened))).review is Review.APPROVED


async def test_scripted_mergeable_is_not_known_yet(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    opened = await forge.open(work.published())
    pull = await work.emulate.ada.pull(work.full_name, opened.number or 0)
    for mergeable, word in [(None, Mergeable.UNKNOWN), (False, Mergeable.NO)]:
        proxy.answer("GET", r"/pulls/\d+$", 200, {**pull, "mergeable": mergeable})
        assert (await forge.look_up(work.ref(opened))).mergeable is word


async def test_a_branch_without_pull_request_is_open_while_it_is_there(forge: GitHubForge, work: Work) -> None:
    status = await forge.look_up(work.ref())
    assert (status.state, status.head_sha, status.number) == (ChangeState.OPEN, work.sha, None)
    await work.emulate.ada.ask("DELETE", f"/repos/{work.full_name}/git/refs/heads/{work.ref().branch}")
    status = await forge.look_up(work.ref())
    assert (status.state, status.head_sha) == (ChangeState.CLOSED, "")


async def test_a_number_that_is_not_there(forge: GitHubForge, work: Work) -> None:
    with pytest.raises(ForgeNotFoundError, match=r"/pulls/4711.*GITHUB_TOKEN"):
        await forge.look_up(work.ref(number=4711))


async def test_scripted_an_unchanged_answer_is_asked_for_with_its_etag(
    forge: GitHubForge, work: Work, proxy: FaultProxy
) -> None:
    """The emulator has no ETags: the proxy makes them, and answers 304."""
    proxy.has_etags = True
    opened = await forge.open(work.published())
    first = await forge.look_up(work.ref(opened))
    proxy.requests.clear()
    assert await forge.look_up(work.ref(opened)) == first
    asked = [one for one in proxy.requests if "status" not in one.path]
    assert len(asked) >= 3
    assert {one.status for one in asked} == {304}
    await work.emulate.grace.review(work.full_name, opened.number or 0, "APPROVE")
    assert (await forge.look_up(work.ref(opened))).review is Review.APPROVED
