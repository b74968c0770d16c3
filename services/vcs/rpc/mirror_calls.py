"""The calls about this node: its mirrors brought up to date, and what they and the worktrees take of its disk."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any

from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.vcs.disk.rescue import RescuedWork
from services.vcs.disk.usage import DiskStatus, MirrorUsage
from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Progress
from services.vcs.mirrors.mirrors import Synced
from services.vcs.rpc.parts import Parts
from services.vcs.rpc.progress import followed
from services.vcs.rpc.statuses import Context, reported


class MirrorCalls(vcs_pb2_grpc.VcsServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Sync(self, request: vcs_pb2.SyncRequest, context: Context) -> AsyncIterator[vcs_pb2.SyncUpdate]:  # noqa: N802 - the proto names it
        async with reported(context):
            repository = parse_repository(request.repository, allow_local=self._parts.allow_local)
            async with aclosing(self._updates(partial(self._parts.mirrors.sync, repository))) as updates:
                async for update in updates:
                    yield update

    async def Clone(self, request: vcs_pb2.CloneRequest, context: Context) -> AsyncIterator[vcs_pb2.SyncUpdate]:  # noqa: N802
        async with reported(context):
            repository = parse_repository(request.repository, allow_local=self._parts.allow_local)
            async with aclosing(self._updates(partial(self._parts.mirrors.clone, repository))) as updates:
                async for update in updates:
                    yield update

    async def JanitorStatus(  # noqa: N802
        self, request: vcs_pb2.JanitorStatusRequest, context: Context
    ) -> vcs_pb2.JanitorStatusReply:
        async with reported(context):
            key = ""
            if request.repository:
                key = parse_repository(request.repository, allow_local=self._parts.allow_local).key
            return _status(await self._parts.janitor.status(key))

    async def _updates(
        self, work: Callable[[Progress], Coroutine[Any, Any, Synced]]
    ) -> AsyncGenerator[vcs_pb2.SyncUpdate, None]:
        async with aclosing(followed(work)) as updates:
            async for update in updates:
                if isinstance(update, Synced):
                    yield vcs_pb2.SyncUpdate(done=self._done(update))
                else:
                    yield vcs_pb2.SyncUpdate(progress=update)

    def _done(self, synced: Synced) -> vcs_pb2.SyncDone:
        return vcs_pb2.SyncDone(
            node=self._parts.node,
            default_branch=synced.default_branch,
            head_sha=synced.head_sha,
            bytes=synced.bytes,
            path=str(synced.path),
        )


def _status(status: DiskStatus) -> vcs_pb2.JanitorStatusReply:
    return vcs_pb2.JanitorStatusReply(
        node=status.node,
        used_bytes=status.used_bytes,
        budget_bytes=status.budget_bytes,
        free_bytes=status.free_bytes,
        worktrees=status.worktrees,
        mirrors=[_usage(usage) for usage in status.mirrors],
        swept_at=status.swept_at,
    )


def _usage(usage: MirrorUsage) -> vcs_pb2.MirrorUsage:
    return vcs_pb2.MirrorUsage(
        repository=usage.repository,
        bytes=usage.bytes,
        used_at=usage.used_at,
        fetched_at=usage.fetched_at,
        worktrees=usage.worktrees,
        worktree_bytes=usage.worktree_bytes,
        rescued=[_rescued(work) for work in usage.rescued],
    )


def _rescued(work: RescuedWork) -> vcs_pb2.RescuedWork:
    return vcs_pb2.RescuedWork(ref=work.ref, run_id=work.run_id, commit_sha=work.commit_sha, time=work.time)
