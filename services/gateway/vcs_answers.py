"""What vcs nodes answer, as the models of the API have it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from services.contracts.repositories import ForgeRepository, Mirror, MirrorState, NodeSync, RescuedWork, SyncState
from services.contracts.v1 import vcs_pb2


def forge_repository(found: vcs_pb2.ForgeRepository) -> ForgeRepository:
    return ForgeRepository(
        full_name=found.full_name,
        clone_url=found.clone_url,
        default_branch=found.default_branch or None,
        description=found.description or None,
        is_private=found.is_private,
        is_archived=found.is_archived,
        is_fork=found.is_fork,
        topics=list(found.topics),
        language=found.language or None,
        size_kb=found.size_kb,
    )


def present_mirror(node: str, usage: vcs_pb2.MirrorUsage) -> Mirror:
    return Mirror(
        node=node,
        state=MirrorState.PRESENT,
        bytes=usage.bytes,
        used_at=_time(usage.used_at),
        fetched_at=_time(usage.fetched_at),
        worktrees=usage.worktrees,
        rescued=[work for each in usage.rescued if (work := _rescued(each)) is not None],
        error=None,
    )


def no_mirror(node: str, *, error: str | None = None) -> Mirror:
    """Of a node that has none or, with an ``error``, did not say."""
    state = MirrorState.ABSENT if error is None else MirrorState.UNKNOWN
    return Mirror(node=node, state=state, bytes=0, used_at=None, fetched_at=None, worktrees=0, rescued=[], error=error)


def node_sync(node: str, state: SyncState, *, error: str | None = None) -> NodeSync:
    """A node of which nothing more than ``state`` is known."""
    return NodeSync(
        node=node,
        state=state,
        phase=None,
        percent=None,
        default_branch=None,
        head_sha=None,
        bytes=None,
        error=error,
    )


def after(seen: NodeSync, update: vcs_pb2.SyncUpdate) -> NodeSync:
    """``seen`` with what ``update`` tells."""
    if update.HasField("done"):
        done = update.done
        return seen.model_copy(
            update={
                "state": SyncState.DONE,
                "percent": 100,
                "default_branch": done.default_branch or None,
                "head_sha": done.head_sha or None,
                "bytes": done.bytes,
                "path": done.path or None,
            }
        )
    return seen.model_copy(update={"phase": update.progress.phase, "percent": update.progress.percent})


def _time(seconds: int) -> datetime | None:
    """From seconds since the epoch; 0 is not known."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _rescued(work: vcs_pb2.RescuedWork) -> RescuedWork | None:
    """None where it cannot be told whose it is."""
    try:
        run_id = UUID(work.run_id)
    except ValueError:
        return None
    return RescuedWork(ref=work.ref, run_id=run_id, commit_sha=work.commit_sha, time=_time(work.time))
