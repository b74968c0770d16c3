"""Pushing: once is enough, twice is no harm, and nobody else's commit is ever overwritten."""

from typing import Any

import pytest

from services.vcs.errors import GitTimeoutError, PushRejectedError, RefRefusedError
from services.vcs.forges import Forge, PublishedChange
from services.vcs.forges.local import LocalForge
from services.vcs.push import Pushed, push
from services.vcs.repositories import parse_repository
from tests.integration.vcs.conftest import METADATA, Node, Remote, git

BRANCH = "quarterdeck/run-1"


async def made(node: Node, remote: Remote, text: str = "x\n") -> str:
    """A commit on main in the mirror, not yet pushed."""
    base = await node.mirrors.fetch(remote.repository)
    patch = f"diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+{text}"
    return await node.commits.commit_patch(remote.repository, base.sha, patch.encode(), METADATA)


async def pushed(node: Node, remote: Remote, sha: str, *, expected: str = "", branch: str = BRANCH) -> Pushed:
    place = node.mirrors.place(remote.repository)
    options = {"branch": branch, "commit_sha": sha, "expected_remote_sha": expected}
    return await push(node.git, place, remote.repository, **options)


async def test_a_new_branch_then_the_same_again(node: Node, remote: Remote) -> None:
    sha = await made(node, remote)
    assert await pushed(node, remote, sha) == Pushed(sha, moved=True)
    assert await pushed(node, remote, sha) == Pushed(sha, moved=False)
    assert await pushed(node, remote, sha, expected="f" * 40) == Pushed(sha, moved=False)
    assert remote.at(BRANCH) == sha


async def test_an_update_of_what_was_pushed_before(node: Node, remote: Remote) -> None:
    first, second = await made(node, remote), await made(node, remote, "y\n")
    await pushed(node, remote, first)
    assert await pushed(node, remote, second, expected=first) == Pushed(second, moved=True)
    assert remote.at(BRANCH) == second


@pytest.mark.parametrize("expected", ["", "ours"])
async def test_a_foreign_commit_is_never_overwritten(node: Node, remote: Remote, expected: str) -> None:
    sha = await made(node, remote)
    if expected:
        expected = (await pushed(node, remote, await made(node, remote, "first\n"))).sha
        git(remote.work, "fetch", "-q", str(remote.bare), BRANCH)
        git(remote.work, "checkout", "-q", "FETCH_HEAD")
    foreign = remote.commit({"theirs": "x\n"}, branch=BRANCH)
    # A fetch moves the tracking ref: the bare form of the lease would now let the push through.
    await node.mirrors.fetch(remote.repository, ref=BRANCH)
    with pytest.raises(PushRejectedError, match="stale info") as caught:
        await pushed(node, remote, sha, expected=expected)
    assert not caught.value.retryable
    assert remote.at(BRANCH) == foreign


async def test_a_branch_that_was_deleted_meanwhile_is_not_made_again(node: Node, remote: Remote) -> None:
    first, second = await made(node, remote), await made(node, remote, "y\n")
    await pushed(node, remote, first)
    git(remote.bare, "branch", "-D", BRANCH)
    with pytest.raises(PushRejectedError):
        await pushed(node, remote, second, expected=first)
    assert remote.at(BRANCH) == ""


async def test_a_push_whose_answer_was_lost_is_success(node: Node, remote: Remote) -> None:
    sha = await made(node, remote)
    hook = remote.bare / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\nif [ "$1" = committed ]; then kill -9 $PPID; fi\n')
    hook.chmod(0o755)
    assert await pushed(node, remote, sha) == Pushed(sha, moved=False)
    assert remote.at(BRANCH) == sha


async def test_a_hook_of_the_remote_that_declines_is_final(node: Node, remote: Remote) -> None:
    sha = await made(node, remote)
    hook = remote.bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no such luck >&2; exit 1\n")
    hook.chmod(0o755)
    with pytest.raises(PushRejectedError, match="no such luck") as caught:
        await pushed(node, remote, sha)
    assert not caught.value.retryable


async def test_a_remote_that_is_away_is_worth_another_try(node: Node, remote: Remote) -> None:
    sha = await made(node, remote)
    away = parse_repository("git://127.0.0.1:1/x", allow_local=False)
    place = node.mirrors.place(remote.repository)
    with pytest.raises(PushRejectedError) as caught:
        await push(node.git, place, away, branch=BRANCH, commit_sha=sha, expected_remote_sha="")
    assert caught.value.retryable


async def test_a_push_at_its_deadline_is_worth_another_try(
    node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = await made(node, remote)

    async def late(*_: Any, **__: Any) -> bytes:
        raise GitTimeoutError("git push was ended after 300 s")

    monkeypatch.setattr(node.git, "run", late)
    with pytest.raises(PushRejectedError) as caught:
        await pushed(node, remote, sha)
    assert caught.value.retryable


@pytest.mark.parametrize("branch", ["--mirror", "a b", "x..y", "$(x)", "+main:main"])
async def test_hostile_branch_names_reach_no_command(node: Node, remote: Remote, branch: str) -> None:
    with pytest.raises(RefRefusedError):
        await pushed(node, remote, "a" * 40, branch=branch)
    assert node.git.commands == []


async def test_the_local_forge_has_one_page_a_changeset(remote: Remote) -> None:
    forge: Forge = LocalForge("http://127.0.0.1:8080/")
    change = PublishedChange("c/1", remote.repository, BRANCH, "main", "a" * 40, "Title", "Body")
    assert await forge.open(change) == await forge.open(change) == "http://127.0.0.1:8080/changesets/c%2F1"
