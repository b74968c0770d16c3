"""Closed, reopened, merged, its branch deleted: once each, also where the answer is lost and the call repeated."""

import contextlib

import pytest

from services.contracts.words import MergeMethod
from services.vcs.errors import ForgeNotFoundError, ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges import ChangeState
from services.vcs.forges.github import GitHubForge
from tests.integration.vcs.github.conftest import BRANCH, Work
from tests.integration.vcs.github.faults import FaultProxy

COMMENTS = r"/issues/\d+/comments$"
MERGE = r"/merge$"


async def test_closing_says_why_and_deletes_the_branch(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    status = await forge.close(work.ref(opened), comment="Nothing is left to change.", delete_branch=True)
    assert (status.state, status.head_sha) == (ChangeState.CLOSED, "")
    (comment,) = await work.emulate.ada.comments(work.full_name, opened.number or 0)
    assert comment["body"].startswith("Nothing is left to change.\n\n<!-- quarterdeck:comment=cs-1:")
    assert await work.emulate.ada.sha_of(work.full_name, BRANCH) == ""


@pytest.mark.parametrize(("method", "path"), [("POST", COMMENTS), ("PATCH", r"/pulls/\d+$"), ("DELETE", "/git/refs/")])
async def test_closing_is_repeated_after_a_lost_answer(
    forge: GitHubForge, work: Work, proxy: FaultProxy, method: str, path: str
) -> None:
    opened = await forge.open(work.published())
    proxy.drop(method, path, when="after")
    with contextlib.suppress(ForgeUnavailableError):
        await forge.close(work.ref(opened), comment="Stale.", delete_branch=True)
    status = await forge.close(work.ref(opened), comment="Stale.", delete_branch=True)
    assert (status.state, status.head_sha) == (ChangeState.CLOSED, "")
    assert not proxy.unused
    assert len(await work.emulate.ada.comments(work.full_name, opened.number or 0)) == 1


async def test_a_branch_with_more_than_ours_is_left(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    theirs = await work.emulate.grace.push(work.full_name, BRANCH)
    status = await forge.close(work.ref(opened), comment="", delete_branch=True)
    assert status.state is ChangeState.CLOSED
    assert status.head_sha == theirs
    assert await work.emulate.ada.comments(work.full_name, opened.number or 0) == []


async def test_scripted_a_branch_that_github_keeps_is_no_failure(
    forge: GitHubForge, work: Work, proxy: FaultProxy
) -> None:
    opened = await forge.open(work.published())
    proxy.answer("DELETE", "/git/refs/", 422, {"message": "Cannot delete a protected branch"})
    status = await forge.close(work.ref(opened), comment="", delete_branch=True)
    assert (status.state, status.head_sha) == (ChangeState.CLOSED, work.sha)


async def test_a_base_is_never_deleted(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    main = await work.emulate.ada.sha_of(work.full_name, "main")
    await forge.close(work.ref(branch="main", commit_sha=main), comment="", delete_branch=True)
    assert proxy.count("DELETE", "") == 0


async def test_closing_a_branch_without_pull_request(forge: GitHubForge, work: Work) -> None:
    status = await forge.close(work.ref(), comment="Not said: there is nowhere to.", delete_branch=True)
    assert (status.state, status.head_sha) == (ChangeState.CLOSED, "")


async def test_reopening(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    await forge.close(work.ref(opened), comment="", delete_branch=False)
    for _ in range(2):
        assert (await forge.reopen(work.ref(opened))).state is ChangeState.OPEN
    with pytest.raises(ForgeNotFoundError, match="no pull request from other"):
        await forge.reopen(work.ref(branch="other"))


@pytest.mark.parametrize("method", MergeMethod)
async def test_merging(forge: GitHubForge, work: Work, proxy: FaultProxy, method: MergeMethod) -> None:
    opened = await forge.open(work.published())
    status = await forge.merge(work.ref(opened), method, delete_branch=True)
    assert (status.state, status.head_sha) == (ChangeState.MERGED, "")
    assert status.merge_sha == await work.emulate.ada.sha_of(work.full_name, "main")
    (asked,) = proxy.asked("PUT", MERGE)
    assert asked.body == {"sha": work.sha, "merge_method": method.value}


async def test_merging_what_is_merged_is_success(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    opened = await forge.open(work.published())
    first = await forge.merge(work.ref(opened), MergeMethod.SQUASH, delete_branch=False)
    again = await forge.merge(work.ref(opened), MergeMethod.SQUASH, delete_branch=True)
    assert again.merge_sha == first.merge_sha
    assert again.head_sha == ""
    assert proxy.count("PUT", MERGE) == 1
    with pytest.raises(ForgeRefusedError, match="is merged and cannot be opened again"):
        await forge.reopen(work.ref(opened))
    assert (await forge.close(work.ref(opened), comment="No.", delete_branch=False)).state is ChangeState.MERGED
    assert await work.emulate.ada.comments(work.full_name, opened.number or 0) == []


async def test_a_lost_answer_to_a_merge_that_was_done(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    opened = await forge.open(work.published())
    proxy.drop("PUT", MERGE, when="after")
    assert (await forge.merge(work.ref(opened), MergeMethod.MERGE, delete_branch=False)).state is ChangeState.MERGED


async def test_a_lost_merge_that_was_not_done(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    opened = await forge.open(work.published())
    proxy.drop("PUT", MERGE, when="instead")
    with pytest.raises(ForgeUnavailableError):
        await forge.merge(work.ref(opened), MergeMethod.MERGE, delete_branch=True)
    assert await work.emulate.ada.sha_of(work.full_name, BRANCH) == work.sha


async def test_another_commit_than_ours_is_not_merged(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    with pytest.raises(ForgeRefusedError, match="Head sha is out of date"):
        await forge.merge(work.ref(opened, commit_sha="0" * 40), MergeMethod.MERGE, delete_branch=False)
    assert (await forge.look_up(work.ref(opened))).state is ChangeState.OPEN


@pytest.mark.parametrize(
    ("status", "words"), [(405, "Pull Request is not mergeable"), (409, "Head branch was modified")]
)
async def test_scripted_refusals_to_merge_keep_githubs_words(
    forge: GitHubForge, work: Work, proxy: FaultProxy, status: int, words: str
) -> None:
    """The emulator answers 422 in their place."""
    opened = await forge.open(work.published())
    proxy.answer("PUT", MERGE, status, {"message": words})
    with pytest.raises(ForgeRefusedError, match=words) as caught:
        await forge.merge(work.ref(opened), MergeMethod.MERGE, delete_branch=False)
    assert not caught.value.retryable
