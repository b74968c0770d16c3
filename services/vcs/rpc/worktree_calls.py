"""The calls about one attempt's worktree: prepare, checkpoint, restore, commit, release; and what differs."""

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from functools import partial
from itertools import chain, repeat

from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.runtime.postgres import StoreUnavailableError
from services.vcs.errors import LeaseLostError
from services.vcs.git.diffstat import FileChange
from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Progress
from services.vcs.git.trees import CommitMetadata
from services.vcs.mirrors.empty import EMPTY
from services.vcs.rpc.fields import FieldRefusedError, sha_of, uuid_of, worktree_of
from services.vcs.rpc.parts import Difference, Parts
from services.vcs.rpc.progress import followed
from services.vcs.rpc.statuses import Context, reported
from services.vcs.worktrees.checkouts import CheckoutOptions
from services.vcs.worktrees.known_changes import Written
from services.vcs.worktrees.worktrees import Ready


class WorktreeCalls(vcs_pb2_grpc.VcsServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Prepare(self, request: vcs_pb2.PrepareRequest, context: Context) -> AsyncIterator[vcs_pb2.PrepareUpdate]:  # noqa: N802 - the proto names it
        """Progress, then `ready`. A caller that goes away, or whose deadline passes, undoes the work."""
        async with reported(context):
            await self._require_lease(request.worktree)
            async with aclosing(followed(partial(self._prepare, request))) as updates:
                async for update in updates:
                    if isinstance(update, Ready):
                        yield vcs_pb2.PrepareUpdate(ready=_ready(update))
                    else:
                        yield vcs_pb2.PrepareUpdate(progress=update)

    async def Checkpoint(self, request: vcs_pb2.CheckpointRequest, context: Context) -> vcs_pb2.CheckpointReply:  # noqa: N802
        async with reported(context):
            befores = chain(request.before, repeat(b""))
            written = [Written(os.fsencode(path), next(befores) or None) for path in request.written]
            snapshot = await self._parts.worktrees.checkpoint(*worktree_of(request.worktree), written=written)
            return vcs_pb2.CheckpointReply(patch=snapshot.patch, files=_file_stats(snapshot.files))

    async def Restore(self, request: vcs_pb2.RestoreRequest, context: Context) -> vcs_pb2.RestoreReply:  # noqa: N802
        async with reported(context):
            run_id, attempt = await self._require_lease(request.worktree)
            await self._parts.worktrees.restore(run_id, attempt, request.patch)
            return vcs_pb2.RestoreReply()

    async def Commit(self, request: vcs_pb2.CommitRequest, context: Context) -> vcs_pb2.CommitReply:  # noqa: N802
        async with reported(context):
            run_id, attempt = await self._require_lease(request.worktree)
            asked = request.metadata
            metadata = CommitMetadata(asked.author_name, asked.author_email, asked.time, asked.message)
            made = await self._parts.commits.commit_worktree(run_id, attempt, metadata)
            return vcs_pb2.CommitReply(
                patch=made.patch, commit_sha=made.sha, files=_file_stats(made.files), notes=made.notes
            )

    async def Release(self, request: vcs_pb2.ReleaseRequest, context: Context) -> vcs_pb2.ReleaseReply:  # noqa: N802
        async with reported(context):
            run_id, attempt = worktree_of(request.worktree)
            if not await self._is_kept(run_id, attempt):
                await self._parts.worktrees.release(run_id, attempt, reusable=request.reusable)
            return vcs_pb2.ReleaseReply()

    async def Diff(self, request: vcs_pb2.DiffRequest, context: Context) -> vcs_pb2.DiffReply:  # noqa: N802
        async with reported(context):
            found = await self._difference(request)
            return vcs_pb2.DiffReply(patch=found.patch, files=_file_stats(found.files))

    async def _difference(self, request: vcs_pb2.DiffRequest) -> Difference:
        match request.WhichOneof("of"):
            case "worktree":
                return await self._parts.worktrees.checkpoint(*worktree_of(request.worktree))
            case "commits":
                asked = request.commits
                return await self._parts.diff_commits(
                    parse_repository(asked.repository, allow_local=self._parts.allow_local),
                    sha_of("commits.base_sha", asked.base_sha),
                    sha_of("commits.head_sha", asked.head_sha),
                )
            case _:
                raise FieldRefusedError("of", "name a worktree or two commits")

    async def _prepare(self, request: vcs_pb2.PrepareRequest, progress: Progress) -> Ready:
        named = request.repository
        return await self._parts.worktrees.prepare(
            *worktree_of(request.worktree),
            parse_repository(named, allow_local=self._parts.allow_local) if named else EMPTY,
            base_ref=request.base_ref,
            base_sha=request.base_sha,
            patch=request.patch,
            checkout=CheckoutOptions(request.path, lfs=request.lfs, submodules=request.submodules),
            progress=progress,
        )

    async def _is_kept(self, run_id: str, attempt: int) -> bool:
        """Where nobody can say it stays, and the janitor asks again."""
        try:
            return await self._parts.is_kept(run_id, attempt)
        except StoreUnavailableError:
            return True

    async def _require_lease(self, asked: vcs_pb2.WorktreeRef) -> tuple[str, int]:
        """The run's id and the attempt's number; raises ``LeaseLostError``."""
        run_id, attempt = worktree_of(asked)
        token = uuid_of("worktree.lease_token", asked.lease_token)
        if not await self._parts.check_lease(run_id, attempt, str(token)):
            raise LeaseLostError(f"attempt {attempt} of run {run_id} holds no lease (any more); stop working on it")
        return run_id, attempt


def _ready(ready: Ready) -> vcs_pb2.PrepareReady:
    return vcs_pb2.PrepareReady(path=str(ready.path), base_sha=ready.base_sha, base_branch=ready.base_branch)


def _file_stats(files: Iterable[FileChange]) -> list[vcs_pb2.FileStat]:
    return [
        vcs_pb2.FileStat(
            path=file.path.decode("utf-8", "replace"),
            change=file.change,
            insertions=file.insertions,
            deletions=file.deletions,
            binary=file.binary,
            blob=file.new_blob,
        )
        for file in files
    ]
