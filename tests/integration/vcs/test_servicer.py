"""The service over a real channel: progress then ready, typed errors, and a caller that goes away."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.contracts.v1 import vcs_pb2 as pb
from services.contracts.v1 import vcs_pb2_grpc
from services.runtime.postgres import StoreUnavailableError
from services.vcs.servicer import ERROR_DETAIL_KEY, VcsServicer
from tests.integration.vcs.conftest import Node, Remote, git

DEADLINE = 20


POSTGRES_IS_AWAY = "away"


@pytest.fixture
async def stub(node: Node) -> AsyncIterator["vcs_pb2_grpc.VcsAsyncStub"]:
    async def check_lease(run_id: str, attempt: int, token: str) -> bool:
        if token == POSTGRES_IS_AWAY:
            raise StoreUnavailableError("connection refused")
        return token == f"token-{run_id}-{attempt}"

    server = grpc.aio.server()
    servicer = VcsServicer(node.worktrees, node.commits, check_lease, allow_local=True)
    vcs_pb2_grpc.add_VcsServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield vcs_pb2_grpc.VcsStub(channel)
    await server.stop(None)


def ref(run_id: str = "run", attempt: int = 1, token: str | None = None) -> pb.WorktreeRef:
    lease_token = f"token-{run_id}-{attempt}" if token is None else token
    return pb.WorktreeRef(run_id=run_id, attempt=attempt, lease_token=lease_token)


async def prepare(stub: "vcs_pb2_grpc.VcsAsyncStub", remote: Remote, **fields: Any) -> list[pb.PrepareUpdate]:
    request = pb.PrepareRequest(worktree=ref(), repository=str(remote.bare))
    request.MergeFrom(pb.PrepareRequest(**fields))
    return [update async for update in stub.Prepare(request, timeout=DEADLINE)]


async def test_a_run_from_prepare_to_release(stub: "vcs_pb2_grpc.VcsAsyncStub", node: Node, remote: Remote) -> None:
    remote.commit({f"many/{number}": f"{number}\n" * 50 for number in range(200)})
    *progress, last = await prepare(stub, remote)
    assert [update.WhichOneof("update") for update in progress] == ["progress"] * len(progress)
    assert ("Receiving objects", 100) in {(u.progress.phase, u.progress.percent) for u in progress}
    assert last.ready.base_sha == git(remote.work, "rev-parse", "HEAD")
    assert last.ready.base_branch == "main"
    worktree = Path(last.ready.path)
    (worktree / "new").write_bytes(b"\0binary")
    checkpoint = await stub.Checkpoint(pb.CheckpointRequest(worktree=ref()), timeout=DEADLINE)
    (changed,) = checkpoint.files
    assert (changed.path, changed.change, changed.binary, changed.insertions) == ("new", "added", True, 0)
    metadata = pb.CommitMetadata(author_name="A", author_email="a@b", time=1, message="m")
    commit = await stub.Commit(pb.CommitRequest(worktree=ref(), metadata=metadata), timeout=DEADLINE)
    assert commit.patch == checkpoint.patch
    assert len(commit.commit_sha) == 40
    for _ in range(2):
        await stub.Release(pb.ReleaseRequest(worktree=ref()), timeout=DEADLINE)
    assert node.leftovers() == []


async def test_while_postgres_is_away_it_is_as_if_the_vcs_were(
    stub: "vcs_pb2_grpc.VcsAsyncStub", node: Node, remote: Remote
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await prepare(stub, remote, worktree=ref(token=POSTGRES_IS_AWAY))
    assert (raised.value.code(), ERROR_DETAIL_KEY in dict(raised.value.trailing_metadata() or ())) == (
        grpc.StatusCode.UNAVAILABLE,
        False,
    )
    assert "Postgres is away" in (raised.value.details() or "")
    assert node.leftovers() == []


def detail(error: grpc.aio.AioRpcError) -> pb.VcsErrorDetail:
    trailing = dict(error.trailing_metadata() or ())
    return pb.VcsErrorDetail.FromString(trailing[ERROR_DETAIL_KEY])


@pytest.mark.parametrize(
    ("fields", "code", "exit_reason", "retryable"),
    [
        ({"worktree": ref(token="old")}, "FAILED_PRECONDITION", "lease_lost", False),
        ({"repository": "ext::x"}, "INVALID_ARGUMENT", "clone_failed", False),
        ({"base_ref": "--x"}, "INVALID_ARGUMENT", "clone_failed", False),
        ({"worktree": ref("../x")}, "INVALID_ARGUMENT", "internal", False),
        ({"base_ref": "nowhere"}, "FAILED_PRECONDITION", "clone_failed", False),
        ({"repository": "git://127.0.0.1:1/x"}, "UNAVAILABLE", "clone_failed", True),
        ({"patch": b"no patch"}, "FAILED_PRECONDITION", "internal", False),
    ],
)
async def test_a_failed_prepare_says_why(
    stub: "vcs_pb2_grpc.VcsAsyncStub",
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


async def test_commit_and_checkpoint_are_refused_with_their_reasons(
    stub: "vcs_pb2_grpc.VcsAsyncStub", remote: Remote
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Checkpoint(pb.CheckpointRequest(worktree=ref()), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await prepare(stub, remote)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Commit(pb.CommitRequest(worktree=ref(token="old")), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert detail(caught.value).exit_reason == "lease_lost"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Commit(pb.CommitRequest(worktree=ref()), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_restore_puts_back_for_who_holds_the_lease_alone(
    stub: "vcs_pb2_grpc.VcsAsyncStub", node: Node, remote: Remote
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Restore(pb.RestoreRequest(worktree=ref()), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    *_, last = await prepare(stub, remote)
    worktree = Path(last.ready.path)
    (worktree / "new").write_bytes(b"\0binary")
    patch = (await stub.Checkpoint(pb.CheckpointRequest(worktree=ref()), timeout=DEADLINE)).patch
    (worktree / "new").unlink()
    (worktree / "left").touch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Restore(pb.RestoreRequest(worktree=ref(token="old"), patch=patch), timeout=DEADLINE)
    assert (caught.value.code(), detail(caught.value).exit_reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "lease_lost",
    )
    assert (worktree / "left").exists()
    for _ in range(2):
        await stub.Restore(pb.RestoreRequest(worktree=ref(), patch=patch), timeout=DEADLINE)
        assert (worktree / "new").read_bytes() == b"\0binary"
        assert not (worktree / "left").exists()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Restore(pb.RestoreRequest(worktree=ref(), patch=b"no patch"), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "cut short" in (caught.value.details() or "")


async def read_all(updates: AsyncIterable[pb.PrepareUpdate]) -> list[pb.PrepareUpdate]:
    return [update async for update in updates]


@pytest.mark.parametrize("way", ["cancel", "deadline"])
async def test_a_caller_that_goes_away_undoes_the_work(
    stub: "vcs_pb2_grpc.VcsAsyncStub", node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch, way: str
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
    call = stub.Prepare(request, timeout=DEADLINE if way == "cancel" else 0.5)
    reading = asyncio.create_task(read_all(call))
    await asyncio.wait_for(reached.wait(), 10)
    if way == "cancel":
        call.cancel()
    await asyncio.wait_for(undone.wait(), 10)
    assert node.leftovers() == []
    await asyncio.wait([reading], timeout=10)
    assert reading.cancelled() or isinstance(reading.exception(), grpc.aio.AioRpcError)
