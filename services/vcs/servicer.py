"""The gRPC face of worktrees and commits: reads requests, checks leases, turns errors into statuses. No Git here."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

import grpc

from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.runtime.postgres import StoreUnavailableError
from services.vcs import errors
from services.vcs.commits import Commits
from services.vcs.diffstat import FileChange
from services.vcs.repositories import parse_repository
from services.vcs.trees import CommitMetadata
from services.vcs.worktrees import Ready, Worktrees

ERROR_DETAIL_KEY: Final = "quarterdeck-error-bin"
# Headers have a size limit of 8 KiB by default, with everything else that travels in them.
_MAX_DETAIL_CHARACTERS: Final = 2_000

# run id, attempt, lease token → whether the caller still owns the run.
CheckLease = Callable[[str, int, str], Awaitable[bool]]

_STATUSES: Final[tuple[tuple[type[errors.VcsError], grpc.StatusCode], ...]] = (
    (errors.RepositoryRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.RefRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.MetadataRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.WorktreeRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.UnknownWorktreeError, grpc.StatusCode.NOT_FOUND),
    (errors.LeaseLostError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.PatchRefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.PatchTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.GitTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class VcsServicer(vcs_pb2_grpc.VcsServicer):
    def __init__(self, worktrees: Worktrees, commits: Commits, check_lease: CheckLease, *, allow_local: bool) -> None:
        """``allow_local``: whether a repository may be a path on this machine."""
        self._worktrees = worktrees
        self._commits = commits
        self._check_lease = check_lease
        self._allow_local = allow_local

    async def Prepare(self, request: vcs_pb2.PrepareRequest, context: Context) -> AsyncIterator[vcs_pb2.PrepareUpdate]:  # noqa: N802 - the proto names it
        """Progress, then `ready`. A caller that goes away, or whose deadline passes, undoes the work."""
        async with _reported(context):
            await self._require_lease(request.worktree)
            updates: asyncio.Queue[vcs_pb2.PrepareUpdate | None] = asyncio.Queue()
            work = asyncio.create_task(self._prepare(request, updates))
            work.add_done_callback(lambda _: updates.put_nowait(None))
            try:
                while (update := await updates.get()) is not None:
                    yield update
                yield vcs_pb2.PrepareUpdate(ready=_ready(await work))
            finally:
                work.cancel()
                await asyncio.wait([work])

    async def Checkpoint(self, request: vcs_pb2.CheckpointRequest, context: Context) -> vcs_pb2.CheckpointReply:  # noqa: N802
        async with _reported(context):
            worktree = request.worktree
            snapshot = await self._worktrees.checkpoint(worktree.run_id, worktree.attempt)
            return vcs_pb2.CheckpointReply(patch=snapshot.patch, files=_file_stats(snapshot.files))

    async def Restore(self, request: vcs_pb2.RestoreRequest, context: Context) -> vcs_pb2.RestoreReply:  # noqa: N802
        async with _reported(context):
            await self._require_lease(request.worktree)
            await self._worktrees.restore(request.worktree.run_id, request.worktree.attempt, request.patch)
            return vcs_pb2.RestoreReply()

    async def Commit(self, request: vcs_pb2.CommitRequest, context: Context) -> vcs_pb2.CommitReply:  # noqa: N802
        async with _reported(context):
            await self._require_lease(request.worktree)
            asked, worktree = request.metadata, request.worktree
            metadata = CommitMetadata(asked.author_name, asked.author_email, asked.time, asked.message)
            made = await self._commits.commit_worktree(worktree.run_id, worktree.attempt, metadata)
            return vcs_pb2.CommitReply(patch=made.patch, commit_sha=made.sha, files=_file_stats(made.files))

    async def Release(self, request: vcs_pb2.ReleaseRequest, context: Context) -> vcs_pb2.ReleaseReply:  # noqa: N802
        async with _reported(context):
            await self._worktrees.release(request.worktree.run_id, request.worktree.attempt)
            return vcs_pb2.ReleaseReply()

    async def _prepare(
        self, request: vcs_pb2.PrepareRequest, updates: asyncio.Queue[vcs_pb2.PrepareUpdate | None]
    ) -> Ready:
        def tell(phase: str, percent: int) -> None:
            progress = vcs_pb2.PrepareProgress(phase=phase, percent=percent)
            updates.put_nowait(vcs_pb2.PrepareUpdate(progress=progress))

        return await self._worktrees.prepare(
            request.worktree.run_id,
            request.worktree.attempt,
            parse_repository(request.repository, allow_local=self._allow_local),
            base_ref=request.base_ref,
            base_sha=request.base_sha,
            patch=request.patch,
            progress=tell,
        )

    async def _require_lease(self, worktree: vcs_pb2.WorktreeRef) -> None:
        if not await self._check_lease(worktree.run_id, worktree.attempt, worktree.lease_token):
            words = f"attempt {worktree.attempt} of run {worktree.run_id} holds no lease (any more); stop working on it"
            raise errors.LeaseLostError(words)


def status_of(error: errors.VcsError) -> grpc.StatusCode:
    """The one table from errors to statuses."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    if error.retryable:
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(error, errors.CloneFailedError):
        return grpc.StatusCode.FAILED_PRECONDITION
    return grpc.StatusCode.INTERNAL


@contextlib.asynccontextmanager
async def _reported(context: Context) -> AsyncIterator[None]:
    """End the call with the status and detail of whatever `VcsError` comes up."""
    try:
        yield
    except StoreUnavailableError as error:
        # Whether the caller holds its run cannot be told now: as if this vcs were away.
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"Postgres is away: {error}")
    except errors.VcsError as error:
        detail = vcs_pb2.VcsErrorDetail(
            exit_reason=error.exit_reason,
            git_message=error.git_message[-_MAX_DETAIL_CHARACTERS:],
            retryable=error.retryable,
        )
        await context.abort(
            status_of(error),
            str(error)[:_MAX_DETAIL_CHARACTERS],
            trailing_metadata=((ERROR_DETAIL_KEY, detail.SerializeToString()),),
        )


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
