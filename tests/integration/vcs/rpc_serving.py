"""The gRPC face of a vcs over a node's real parts: served, called with the token, and what a call was refused with."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import pytest

from services.contracts.v1 import vcs_pb2 as pb
from services.contracts.v1 import vcs_pb2_grpc
from services.runtime.grpc import NO_TLS, GrpcSecurity, bearer, make_channel
from services.runtime.postgres import StoreUnavailableError
from services.vcs.disk.janitor import Janitor
from services.vcs.disk.rescue import Rescue
from services.vcs.disk.usage import Disk, DiskLimits
from services.vcs.errors import ForgeNotFoundError
from services.vcs.forges import Forge
from services.vcs.forges.github.manifests import MadeApp
from services.vcs.forges.local import LocalForge
from services.vcs.git.repositories import Repository
from services.vcs.rpc.server import RpcServer
from services.vcs.rpc.servicer import ERROR_DETAIL_KEY, Parts, VcsServicer
from services.vcs.worktrees import diffs
from tests.integration.vcs.conftest import Node
from tests.integration.vcs.rpc_changesets import RecordedChangesets

TOKEN = "a token"
DEADLINE_SECONDS = 60
LOOPBACK = "127.0.0.1:0"

RUN = "3f0e6a52-7f0b-4d0c-9a39-5d2f7f6f0001"
LEASE = "3f0e6a52-7f0b-4d0c-9a39-5d2f7f6f0002"
OLD_LEASE = "3f0e6a52-7f0b-4d0c-9a39-5d2f7f6f0003"
POSTGRES_IS_AWAY = "3f0e6a52-7f0b-4d0c-9a39-5d2f7f6f0004"


class Store:
    """Knows of no run: no worktree is held, and no patch is stored."""

    async def attempts_held(self, run_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        return {}

    async def attempts_kept(self, run_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        return {}

    async def is_stored(self, run_id: UUID, patch: bytes) -> bool:
        return False

    async def checkpointed(self, run_id: UUID) -> bytes:
        return b""


class OneForge:
    """Has every repository."""

    def __init__(self, forge: Forge) -> None:
        self._forge = forge

    def of(self, repository: Repository) -> Forge:
        return self._forge

    def listing(self) -> Forge:
        return self._forge


class NoApps:
    """Takes no code for one."""

    async def set_up(self, code: str) -> MadeApp:
        raise ForgeNotFoundError(f"{len(code)} characters are no code")


async def check_lease(run_id: str, attempt: int, token: str) -> bool:
    if token == POSTGRES_IS_AWAY:
        raise StoreUnavailableError("connection refused")
    return token == LEASE


async def never_kept(run_id: str, attempt: int) -> bool:
    return False


def parts_of(node: Node, **changes: Any) -> Parts:
    """The real parts of ``node``, but for changesets, which are in Postgres."""
    store = Store()
    rescue = Rescue(node.root, node.git, node.worktrees, store)
    janitor = Janitor(
        worktrees=node.worktrees,
        mirrors=node.mirrors,
        holders=store,
        rescue=rescue,
        disk=Disk(node.root, node.mirrors, rescue),
        limits=DiskLimits(budget_bytes=10**12),
        node="vcs-1",
    )
    parts = Parts(
        worktrees=node.worktrees,
        commits=node.commits,
        check_lease=check_lease,
        is_kept=never_kept,
        diff_commits=partial(diffs.between, node.git, node.mirrors),
        mirrors=node.mirrors,
        janitor=janitor,
        forges=OneForge(LocalForge(node.git, node.mirrors, "http://127.0.0.1:8080")),
        changesets=RecordedChangesets(),
        apps=NoApps(),
        node="vcs-1",
        allow_local=True,
    )
    return replace(parts, **changes)


@asynccontextmanager
async def serving(parts: Parts, address: str = LOOPBACK, security: GrpcSecurity = NO_TLS) -> AsyncIterator[str]:
    """The address that it is served at."""
    server = RpcServer(VcsServicer(parts), token=TOKEN, security=security)
    listening = await server.start(address)
    try:
        yield listening
    finally:
        await server.stop()


class Stub:
    """The generated stub; the token and a deadline go with every call."""

    def __init__(self, channel: grpc.aio.Channel, token: str = TOKEN) -> None:
        self._stub: vcs_pb2_grpc.VcsAsyncStub = vcs_pb2_grpc.VcsStub(channel)
        self._metadata = bearer(token)

    def __getattr__(self, method: str) -> Any:
        def call(request: Any, **options: Any) -> Any:
            given = {"timeout": DEADLINE_SECONDS, "metadata": self._metadata}
            return getattr(self._stub, method)(request, **given | options)

        return call


@asynccontextmanager
async def stub_of(parts: Parts) -> AsyncIterator[Stub]:
    async with serving(parts) as address, make_channel(address) as channel:
        yield Stub(channel)


def ref(run_id: str = RUN, attempt: int = 1, token: str = LEASE) -> pb.WorktreeRef:
    return pb.WorktreeRef(run_id=run_id, attempt=attempt, lease_token=token)


async def refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """The error that ``call`` fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def read_all(call: Any) -> list[Any]:
    return [message async for message in call]


def detail(error: grpc.aio.AioRpcError) -> pb.VcsErrorDetail:
    trailing = dict(error.trailing_metadata() or ())
    return pb.VcsErrorDetail.FromString(trailing[ERROR_DETAIL_KEY])
