"""Asks the vcs of this node for worktrees, patches and commits; turns its statuses back into errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from services.agent.checkpoints import Snapshot, TreeTooLargeError
from services.agent.tools import FileChange
from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.contracts.words import ExitReason
from services.jobs.errors import LeaseLostError
from services.jobs.models import ClaimedRun, Commit, Hold
from services.runtime.grpc import NO_TLS, GrpcSecurity, bearer, explained, make_channel

_ERROR_DETAIL = "quarterdeck-error-bin"
_LEASE_LOST = "lease_lost"
_TOO_LARGE = "patch_too_large"
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

PREPARE_DEADLINE = timedelta(minutes=40)
COMMIT_DEADLINE = timedelta(minutes=10)
RESTORE_DEADLINE = timedelta(minutes=30)
RELEASE_DEADLINE = timedelta(seconds=30)


Progress = Callable[[str, int], Awaitable[None]]


class VcsFailedError(Exception):
    """The vcs could not do it: the words are Git's own where there are any."""

    def __init__(self, reason: ExitReason, words: str, *, retryable: bool) -> None:
        super().__init__(words)
        self.reason = reason
        self.retryable = retryable


class VcsAwayError(VcsFailedError):
    """No vcs answers at the address, or it was restarted under the call: nothing is wrong with the run."""

    def __init__(self, words: str) -> None:
        super().__init__(ExitReason.INTERNAL, f"the vcs of this node is away: {words}", retryable=True)


@dataclass(frozen=True)
class Worktree:
    path: Path
    base_sha: str
    base_branch: str | None


class VcsClient:
    def __init__(self, address: str, token: str, security: GrpcSecurity = NO_TLS) -> None:
        self._channel = make_channel(address, security)
        self._stub: vcs_pb2_grpc.VcsAsyncStub = vcs_pb2_grpc.VcsStub(self._channel)
        self._metadata = bearer(token)

    async def close(self) -> None:
        await self._channel.close()

    async def prepare(self, run: ClaimedRun, *, progress: Progress | None = None) -> Worktree:
        """The worktree of this attempt, with what earlier attempts checkpointed restored into it.

        ``progress``: hears Git's own phases and percentages.
        """
        request = vcs_pb2.PrepareRequest(
            worktree=_ref(run.hold),
            repository=run.repository or "",
            base_ref=run.base_ref or "",
            base_sha=run.base_sha or "",
            patch=(run.tree.patch if run.tree else None) or b"",
            path=run.checkout.path or "",
            lfs=run.checkout.lfs,
            submodules=run.checkout.submodules,
        )
        async with _typed():
            call = self._stub.Prepare(request, metadata=self._metadata, timeout=PREPARE_DEADLINE.total_seconds())
            async for update in call:
                if update.HasField("progress") and progress is not None:
                    await progress(update.progress.phase, update.progress.percent)
                if update.HasField("ready"):
                    ready = update.ready
                    return Worktree(Path(ready.path), ready.base_sha, ready.base_branch or None)
        raise VcsFailedError(ExitReason.INTERNAL, "vcs ended the preparation without a worktree", retryable=True)

    async def checkpoint(self, hold: Hold) -> bytes:
        """The worktree as a patch against its base."""
        return (await self.snapshot(hold)).patch

    async def snapshot(self, hold: Hold, *, written: Sequence[FileChange] = ()) -> Snapshot:
        """The worktree as a patch against its base, and what differs from that.

        ``written``: all that was written since the last one, of files that were there then, each once, with what it
        held then where that is known; empty: not known. Raises ``TreeTooLargeError``.
        """
        paths, before = [each.path for each in written], [each.before or b"" for each in written]
        async with _typed():
            reply = await self._stub.Checkpoint(
                vcs_pb2.CheckpointRequest(worktree=_ref(hold), written=paths, before=before),
                metadata=self._metadata,
                timeout=COMMIT_DEADLINE.total_seconds(),
            )
        return Snapshot(bytes(reply.patch), {each.path: (each.change, each.blob) for each in reply.files})

    async def restore(self, hold: Hold, patch: bytes) -> None:
        """Put the worktree back to exactly its base and ``patch``, a checkpoint's; what is ignored stays."""
        async with _typed():
            await self._stub.Restore(
                vcs_pb2.RestoreRequest(worktree=_ref(hold), patch=patch),
                metadata=self._metadata,
                timeout=RESTORE_DEADLINE.total_seconds(),
            )

    async def commit(self, hold: Hold, metadata: vcs_pb2.CommitMetadata, run: ClaimedRun) -> Commit | None:
        """The commit that the run delivers; None where nothing changed. Raises ``TreeTooLargeError``."""
        async with _typed():
            reply = await self._stub.Commit(
                vcs_pb2.CommitRequest(worktree=_ref(hold), metadata=metadata),
                metadata=self._metadata,
                timeout=COMMIT_DEADLINE.total_seconds(),
            )
        if not reply.commit_sha:
            return None
        return Commit(
            sha=reply.commit_sha,
            author_name=metadata.author_name,
            author_email=metadata.author_email,
            time=run.created_at,
            message=metadata.message,
            patch=bytes(reply.patch),
            files=[_file_stat(stat) for stat in reply.files],
            notes=tuple(reply.notes),
        )

    async def release(self, hold: Hold, *, reusable: bool = False) -> None:
        """``reusable``: nothing of the attempt can write to its worktree any more."""
        async with _typed():
            await self._stub.Release(
                vcs_pb2.ReleaseRequest(worktree=_ref(hold), reusable=reusable),
                metadata=self._metadata,
                timeout=RELEASE_DEADLINE.total_seconds(),
            )


def _ref(hold: Hold) -> vcs_pb2.WorktreeRef:
    return vcs_pb2.WorktreeRef(run_id=str(hold.run_id), attempt=hold.attempt, lease_token=str(hold.token))


def _file_stat(stat: vcs_pb2.FileStat) -> dict[str, Any]:
    return {
        "path": stat.path,
        "change": stat.change,
        "insertions": stat.insertions,
        "deletions": stat.deletions,
        "binary": stat.binary,
    }


@asynccontextmanager
async def _typed() -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _error(error) from error


def _error(error: grpc.aio.AioRpcError) -> VcsFailedError | LeaseLostError | TreeTooLargeError:
    detail = vcs_pb2.VcsErrorDetail()
    for key, value in error.trailing_metadata() or ():
        if key == _ERROR_DETAIL and isinstance(value, bytes):
            detail.ParseFromString(value)
    words = explained(error)
    if detail.exit_reason == _LEASE_LOST:
        return LeaseLostError(words)
    if detail.exit_reason == _TOO_LARGE:
        return TreeTooLargeError(words)
    if not detail.exit_reason and error.code() in _AWAY:
        return VcsAwayError(words)
    retryable = detail.retryable or not detail.exit_reason
    reason = ExitReason(detail.exit_reason) if detail.exit_reason in set(ExitReason) else ExitReason.INTERNAL
    return VcsFailedError(reason, words, retryable=retryable)
