"""The service `quarterdeck.v1.Vcs`, put together from its three groups of calls."""

from services.vcs.rpc.forge_calls import ForgeCalls
from services.vcs.rpc.mirror_calls import MirrorCalls
from services.vcs.rpc.parts import CheckLease, Parts
from services.vcs.rpc.statuses import ERROR_DETAIL_KEY, status_of
from services.vcs.rpc.worktree_calls import WorktreeCalls

__all__ = ["ERROR_DETAIL_KEY", "CheckLease", "Parts", "VcsServicer", "status_of"]


class VcsServicer(WorktreeCalls, MirrorCalls, ForgeCalls):
    """Answers each call from ``Parts``."""
