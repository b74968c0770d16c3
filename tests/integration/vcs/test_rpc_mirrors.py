"""Mirrors over gRPC: synced and cloned with progress, compared, and what they take of the disk."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from services.contracts.v1 import vcs_pb2 as pb
from services.vcs.git.repositories import Repository
from services.vcs.git.runner import Progress
from services.vcs.mirrors.mirrors import Synced
from tests.integration.vcs.conftest import Node, Remote, git
from tests.integration.vcs.rpc_serving import Stub, detail, parts_of, read_all, ref, refusal, stub_of


@pytest.fixture
async def stub(node: Node) -> AsyncIterator[Stub]:
    async with stub_of(parts_of(node)) as stub:
        yield stub


async def test_a_mirror_is_cloned_and_then_synced(stub: Stub, node: Node, remote: Remote) -> None:
    error = await refusal(read_all(stub.Sync(pb.SyncRequest(repository=str(remote.bare)))))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "clone it first" in (error.details() or "")

    remote.commit({f"many/{number}": f"{number}\n" * 50 for number in range(200)})
    *progress, last = await read_all(stub.Clone(pb.CloneRequest(repository=str(remote.bare))))
    assert ("Receiving objects", 100) in {(update.progress.phase, update.progress.percent) for update in progress}
    assert (last.done.node, last.done.default_branch) == ("vcs-1", "main")
    assert last.done.head_sha == remote.at("main")
    assert last.done.bytes > 0

    head = remote.commit({"new": "x"})
    *_, last = await read_all(stub.Sync(pb.SyncRequest(repository=str(remote.bare))))
    assert last.done.head_sha == head
    assert Path(last.done.path).name.endswith(".git")
    assert (Path(last.done.path) / "HEAD").is_file()


async def test_a_remote_that_is_not_there_fails_a_clone_with_gits_words(stub: Stub, tmp_path: Path) -> None:
    error = await refusal(read_all(stub.Clone(pb.CloneRequest(repository=str(tmp_path / "none")))))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert detail(error).exit_reason == "clone_failed"
    assert "does not appear to be a git repository" in detail(error).git_message


async def test_a_clone_goes_on_where_its_caller_goes_away(
    node: Node, remote: Remote, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, ended = asyncio.Event(), asyncio.Event()
    sync = node.mirrors._sync

    async def held(repository: Repository, tell: Progress) -> Synced:
        tell("Receiving objects", 1)
        await let_go.wait()
        try:
            return await sync(repository, tell)
        finally:
            ended.set()

    monkeypatch.setattr(node.mirrors, "_sync", held)
    call = stub.Clone(pb.CloneRequest(repository=str(remote.bare)))
    assert (await call.read()).progress.phase == "Receiving objects"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    let_go.set()
    await asyncio.wait_for(ended.wait(), 60)
    assert git(node.mirrors.place(remote.repository).git_dir, "cat-file", "-t", remote.at("main")) == "commit"


async def test_two_commits_are_compared(stub: Stub, remote: Remote) -> None:
    base = remote.at("main")
    head = remote.commit({"README.md": "# Other\n", "new.bin": b"\0\1"})
    commits = pb.CommitRange(repository=str(remote.bare), base_sha=base, head_sha=head)
    reply = await stub.Diff(pb.DiffRequest(commits=commits))
    assert [(file.path, file.change, file.binary) for file in reply.files] == [
        ("README.md", "modified", False),
        ("new.bin", "added", True),
    ]
    assert b"+# Other" in reply.patch


SHA = "a" * 40


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (pb.DiffRequest(), "INVALID_ARGUMENT", "of: name a worktree or two commits"),
        (pb.DiffRequest(worktree=ref("x")), "INVALID_ARGUMENT", "worktree.run_id: 'x' is no UUID"),
        (pb.DiffRequest(worktree=ref(attempt=0)), "INVALID_ARGUMENT", "worktree.attempt: "),
        (pb.DiffRequest(worktree=ref()), "NOT_FOUND", "attempt 1"),
        (
            pb.DiffRequest(commits=pb.CommitRange(repository="/x", base_sha="main", head_sha=SHA)),
            *("INVALID_ARGUMENT", "commits.base_sha: 'main'"),
        ),
        (
            pb.DiffRequest(commits=pb.CommitRange(repository="/x", base_sha=SHA, head_sha="--all")),
            *("INVALID_ARGUMENT", "commits.head_sha: '--all'"),
        ),
        (
            pb.DiffRequest(commits=pb.CommitRange(repository="ext::x", base_sha=SHA, head_sha=SHA)),
            *("INVALID_ARGUMENT", "the repository 'ext::x'"),
        ),
    ],
)
async def test_what_cannot_be_compared_is_named(stub: Stub, request_: pb.DiffRequest, code: str, words: str) -> None:
    error = await refusal(stub.Diff(request_))
    assert error.code().name == code
    assert words in (error.details() or "")


async def test_the_disk_is_reported_by_repository(stub: Stub, remote: Remote, make_remote) -> None:
    other = make_remote("other")
    other.commit({"a": "a"})
    for one in (remote, other):
        await read_all(stub.Clone(pb.CloneRequest(repository=str(one.bare))))
    await read_all(stub.Prepare(pb.PrepareRequest(worktree=ref(), repository=str(remote.bare))))
    every = await stub.JanitorStatus(pb.JanitorStatusRequest())
    assert {usage.repository for usage in every.mirrors} == {remote.repository.key, other.repository.key}
    status = await stub.JanitorStatus(pb.JanitorStatusRequest(repository=str(remote.bare)))
    (usage,) = status.mirrors
    assert (usage.repository, usage.worktrees) == (remote.repository.key, 1)
    assert 0 < usage.bytes < status.used_bytes < status.budget_bytes == 10**12
    assert usage.worktree_bytes > 0
    assert status.free_bytes > 0
    assert (status.node, status.worktrees, status.swept_at) == ("vcs-1", 1, 0)
