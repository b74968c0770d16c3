"""Pushing: once is enough, twice is no harm, and nobody else's commit is ever overwritten."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from services.vcs.errors import GitTimeoutError, PushRejectedError, RefRefusedError
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.push import Pushed, delete_branch, push
from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Git
from tests.integration.vcs.conftest import METADATA, Node, Remote, git

BRANCH = "quarterdeck/run-1"


async def made(node: Node, remote: Remote, text: str = "x\n") -> str:
    """A commit on main in the mirror, not yet pushed."""
    base = await node.mirrors.fetch(remote.repository)
    patch = f"diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+{text}"
    return await node.commits.commit_patch(remote.repository, base.sha, patch.encode(), METADATA)


async def pushed(
    node: Node, remote: Remote, sha: str, *, expected: str = "", branch: str = BRANCH, also_ours: Collection[str] = ()
) -> Pushed:
    place = node.mirrors.place(remote.repository)
    options = {"branch": branch, "commit_sha": sha, "expected_remote_sha": expected}
    return await push(node.git, place, remote.repository, **options, also_ours=also_ours)


async def deleted(node: Node, remote: Remote, sha: str) -> None:
    await delete_branch(node.git, node.mirrors.place(remote.repository), remote.repository, BRANCH, sha)


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
    for also_ours in ((), ("e" * 40,)):
        with pytest.raises(PushRejectedError, match=f"it is at {foreign}, which is not ours") as caught:
            await pushed(node, remote, sha, expected=expected, also_ours=also_ours)
        assert not caught.value.retryable
    assert remote.at(BRANCH) == foreign


async def test_a_branch_that_was_deleted_meanwhile_is_not_made_again(node: Node, remote: Remote) -> None:
    first, second = await made(node, remote), await made(node, remote, "y\n")
    await pushed(node, remote, first)
    git(remote.bare, "branch", "-D", BRANCH)
    with pytest.raises(PushRejectedError):
        await pushed(node, remote, second, expected=first)
    assert remote.at(BRANCH) == ""


async def test_an_earlier_commit_of_ours_may_be_replaced_where_it_is_named(node: Node, remote: Remote) -> None:
    first, second, third = [await made(node, remote, f"{text}\n") for text in "xyz"]
    await pushed(node, remote, second)
    # Recorded was the first; that the second arrived was not.
    moved = await pushed(node, remote, third, expected=first, also_ours=(first, second))
    assert moved == Pushed(third, moved=True)
    assert await pushed(node, remote, third, expected=first, also_ours=(second,)) == Pushed(third, moved=False)
    git(remote.bare, "branch", "-D", BRANCH)
    assert await pushed(node, remote, first, expected=third, also_ours=(second,)) == Pushed(first, moved=True)
    assert remote.at(BRANCH) == first


async def test_what_comes_between_the_look_and_the_push_is_not_overwritten(
    node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await made(node, remote), await made(node, remote, "y\n")
    await pushed(node, remote, first)
    run = node.git.run
    theirs: list[str] = []

    async def first_they_push(*arguments: str, **options: Any) -> bytes:
        if arguments[0] == "push" and not theirs:
            git(remote.bare, "update-ref", f"refs/heads/{BRANCH}", remote.at("main"))
            theirs.append(remote.at("main"))
        return await run(*arguments, **options)

    monkeypatch.setattr(node.git, "run", first_they_push)
    with pytest.raises(PushRejectedError, match=remote.at("main")) as caught:
        await pushed(node, remote, second, expected=first, also_ours=(first,))
    assert not caught.value.retryable
    assert [remote.at(BRANCH)] == theirs


async def test_a_branch_of_ours_is_deleted_once_and_a_foreign_commit_keeps_it(node: Node, remote: Remote) -> None:
    first, second = await made(node, remote), await made(node, remote, "y\n")
    await pushed(node, remote, first)
    with pytest.raises(PushRejectedError, match=f"it is at {first}, which is not ours"):
        await deleted(node, remote, second)
    assert remote.at(BRANCH) == first
    for _ in range(2):
        await deleted(node, remote, first)
    assert remote.at(BRANCH) == ""
    with pytest.raises(RefRefusedError):
        await deleted(node, remote, "")


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


async def test_a_remote_that_is_away_is_worth_another_try(node: Node, remote: Remote, tmp_path: Path) -> None:
    sha = await made(node, remote)
    away = parse_repository("https://127.0.0.1:1/x", allow_local=False)
    place = node.mirrors.place(remote.repository)
    git = Git(tmp_path / "home", remotes=RemoteAccess(AllowedRemotes.parse("127.0.0.1")))
    with pytest.raises(PushRejectedError, match="tried again") as caught:
        await push(git, place, away, branch=BRANCH, commit_sha=sha, expected_remote_sha="")
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
