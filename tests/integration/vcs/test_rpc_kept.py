"""Releasing a worktree over gRPC where its job keeps it, and where nobody can say whether it does."""

import pytest

from services.contracts.v1 import vcs_pb2 as pb
from services.runtime.postgres import StoreUnavailableError
from tests.integration.vcs.conftest import Node, Remote
from tests.integration.vcs.rpc_serving import RUN, parts_of, ref, stub_of


@pytest.mark.parametrize(("said", "stays"), [(True, True), (False, False), (None, True)])
async def test_what_is_kept_stays_and_so_does_what_the_janitor_is_to_decide(
    node: Node, remote: Remote, said: bool | None, stays: bool
) -> None:
    async def is_kept(run_id: str, attempt: int) -> bool:
        assert (run_id, attempt) == (RUN, 1)
        if said is None:
            raise StoreUnavailableError("connection refused")
        return said

    await node.worktrees.prepare(RUN, 1, remote.repository)
    async with stub_of(parts_of(node, is_kept=is_kept)) as stub:
        assert await stub.Release(pb.ReleaseRequest(worktree=ref())) == pb.ReleaseReply()
    assert (node.worktrees.present() == [(RUN, 1)]) is stays
