"""The service over a real channel: progress then ready, typed errors, and a caller that goes away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.contracts.v1 import vcs_pb2 as pb
from services.vcs.rpc.servicer import ERROR_DETAIL_KEY
from tests.integration.vcs.conftest import Node, Remote, content, git
from tests.integration.vcs.rpc_serving import (
    OLD_LEASE,
    POSTGRES_IS_AWAY,
    Stub,
    detail,
    parts_of,
    read_all,
    ref,
    stub_of,
)


@pytest.fixture
async def stub(node: Node) -> AsyncIterator[Stub]:
    async with stub_of(parts_of(node)) as stub:
        yield stub


async def prepare(stub: Stub, remote: Remote, **fields: Any) -> list[pb.PrepareUpdate]:
    request = pb.PrepareRequest(worktree=ref(), repository=str(remote.bare))
    request.MergeFrom(pb.PrepareRequest(**fields))
    return await read_all(stub.Prepare(request))


async def test_a_run_from_prepare_to_release(stub: Stub, node: Node, remote: Remote) -> None:
    remote.commit({f"many/{number}": f"{number}\n" * 50 for number in range(200)})
    *progress, last = await prepare(stub, remote)
    assert [update.WhichOneof("update") for update in progress] == ["progress"] * len(progress)
    assert ("Receiving objects", 100) in {(u.progress.phase, u.progress.percent) for u in progress}
    assert last.ready.base_sha == git(remote.work, "rev-parse", "HEAD")
    assert last.ready.base_branch == "main"
    worktree = Path(last.ready.path)
    (worktree / "new").write_bytes(b"\0binary")
    checkpoint = await stub.Checkpoint(pb.CheckpointRequest(worktree=ref()))
    (changed,) = checkpoint.files
    assert (changed.path, changed.change, changed.binary, changed.insertions) == ("new", "added", True, 0)
    metadata = pb.CommitMetadata(author_name="A", author_email="a@b", time=1, message="m")
    commit = await stub.Commit(pb.CommitRequest(worktree=ref(), metadata=metadata))
    difference = await stub.Diff(pb.DiffRequest(worktree=ref()))
    assert commit.patch == checkpoint.patch == difference.patch
    assert list(difference.files) == [changed]
    assert len(commit.commit_sha) == 40
    for _ in range(2):
        await stub.Release(pb.ReleaseRequest(worktree=ref()))
    assert node.leftovers() == []


async def test_a_folder_of_a_repository_is_all_that_is_checked_out(stub: Stub, remote: Remote) -> None:
    remote.commit({"services/a/main.py": "a\n", "services/b/main.py": "b\n"})
    *_, last = await prepare(stub, remote, path="services/a")
    worktree = Path(last.ready.path)
    assert [name for name in content(worktree) if name.endswith(".py")] == ["services/a/main.py"]


async def test_while_postgres_is_away_it_is_as_if_the_vcs_were(stub: Stub, node: Node, remote: Remote) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await prepare(stub, remote, worktree=ref(token=POSTGRES_IS_AWAY))
    assert (raised.value.code(), ERROR_DETAIL_KEY in dict(raised.value.trailing_metadata() or ())) == (
        grpc.StatusCode.UNAVAILABLE,
        False,
    )
    assert "Postgres is away" in (raised.value.details() or "")
    assert node.leftovers() == []


@pytest.mark.parametrize(
    ("fields", "code", "exit_reason", "retryable"),
    [
        ({"worktree": ref(token=OLD_LEASE)}, "FAILED_PRECONDITION", "lease_lost", False),
        ({"repository": "ext::x"}, "INVALID_ARGUMENT", "clone_failed", False),
        ({"base_ref": "--x"}, "INVALID_ARGUMENT", "clone_failed", False),
        ({"worktree": ref("../x")}, "INVALID_ARGUMENT", "internal", False),
        ({"base_ref": "nowhere"}, "FAILED_PRECONDITION", "clone_failed", False),
        ({"repository": "https://nowhere.invalid/x"}, "UNAVAILABLE", "clone_failed", True),
        ({"path": "../outside"}, "INVALID_ARGUMENT", "clone_failed", False),
        ({"path": "nowhere"}, "INVALID_ARGUMENT", "clone_failed", False),
        ({"patch": b"no patch"}, "FAILED_PRECONDITION", "internal", False),
    ],
)
async def test_a_failed_prepare_says_why(
    stub: Stub,
    node: Node,
    remote: Remote,
    fields: dict[str, object],
    code: str,
    exit_reason: str,
    retryable: bool,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await prepare(stub, remote, **fields)
    assert caught.value.code().name == code
    assert detail(caught.value).exit_reason == exit_reason
    assert detail(caught.value).retryable is retryable
    assert caught.value.details()
    assert node.leftovers() == []


async def test_commit_and_checkpoint_are_refused_with_their_reasons(stub: Stub, remote: Remote) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Checkpoint(pb.CheckpointRequest(worktree=ref()))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await prepare(stub, remote)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Commit(pb.CommitRequest(worktree=ref(token=OLD_LEASE)))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert detail(caught.value).exit_reason == "lease_lost"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Commit(pb.CommitRequest(worktree=ref()))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_restore_puts_back_for_who_holds_the_lease_alone(stub: Stub, node: Node, remote: Remote) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Restore(pb.RestoreRequest(worktree=ref()))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    *_, last = await prepare(stub, remote)
    worktree = Path(last.ready.path)
    (worktree / "new").write_bytes(b"\0binary")
    patch = (await stub.Checkpoint(pb.CheckpointRequest(worktree=ref()))).patch
    (worktree / "new").unlink()
    (worktree / "left").touch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Restore(pb.RestoreRequest(worktree=ref(token=OLD_LEASE), patch=patch))
    assert (caught.value.code(), detail(caught.value).exit_reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "lease_lost",
    )
    assert (worktree / "left").exists()
    for _ in range(2):
        await stub.Restore(pb.RestoreRequest(worktree=ref(), patch=patch))
        assert (worktree / "new").read_bytes() == b"\0binary"
        assert not (worktree / "left").exists()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Restore(pb.RestoreRequest(worktree=ref(), patch=b"no patch"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "cut short" in (caught.value.details() or "")


@pytest.mark.parametrize("way", ["cancel", "deadline"])
async def test_a_caller_that_goes_away_undoes_the_work(
    stub: Stub, node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    reached, undone = asyncio.Event(), asyncio.Event()
    prepare_worktree = node.worktrees.prepare

    async def watched(*arguments: object, **options: object) -> object:
        try:
            return await prepare_worktree(*arguments, **options)  # type: ignore[arg-type]
        finally:
            undone.set()

    async def stuck(*_: object, **__: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(node.worktrees, "prepare", watched)
    monkeypatch.setattr(node.worktrees, "_check_out", stuck)
    request = pb.PrepareRequest(worktree=ref(), repository=str(remote.bare))
    call = stub.Prepare(request, timeout=60 if way == "cancel" else 0.5)
    reading = asyncio.create_task(read_all(call))
    await asyncio.wait_for(reached.wait(), 10)
    if way == "cancel":
        call.cancel()
    await asyncio.wait_for(undone.wait(), 10)
    assert node.leftovers() == []
    await asyncio.wait([reading], timeout=10)
    assert reading.cancelled() or isinstance(reading.exception(), grpc.aio.AioRpcError)
