"""What a cancelled run's last calls came to is stored with its end, where the calls themselves are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contracts.words import EventKind
from services.jobs.models import Checkpoint, SavedTree, StoredMessage
from services.jobs.unit import Draft
from tests.integration.jobs.domain import Domain

CALL = StoredMessage(1, "assistant", b"a call")
LEFT = Checkpoint(
    messages=[StoredMessage(2, "user", b"cancelled")],
    tree=SavedTree(b"a patch", {"f.txt": "1"}),
    events=[Draft(EventKind.TOOL_ENDED, {"turn": 1, "toolUseId": "a", "name": "b", "isError": True, "durationMs": 0})],
    outputs={"1.txt": b"much"},
)


@pytest.mark.parametrize("is_stored", [True, False])
async def test_it_is_stored_where_the_message_before_it_is(domain: Domain, is_stored: bool) -> None:
    hold = (await domain.start()).hold
    if is_stored:
        await domain.running.checkpoint(hold, Checkpoint(messages=[CALL]))
    await domain.cancelling.request(domain.client, hold.job_id)
    await domain.running.cancelled(hold, left=LEFT)

    assert (await domain.row("runs", hold.run_id))["state"] == "cancelled"
    kept = ("SELECT body FROM messages ORDER BY number", "SELECT patch FROM checkpoints", "SELECT body FROM outputs")
    found = [[bytes(value) for row in await domain.rows(statement) for value in row] for statement in kept]
    assert found == ([[b"a call", b"cancelled"], [b"a patch"], [b"much"]] if is_stored else [[], [], []])
    kinds = await domain.kinds(hold.job_id)
    assert kinds.count(EventKind.TOOL_ENDED) == is_stored
    assert kinds[-2:] == ["run.finished", "job.finished"]


@pytest.mark.parametrize("patch", [None, b"a patch"])
async def test_a_tree_that_is_too_large_is_stored_as_behind(domain: Domain, patch: bytes | None) -> None:
    hold = (await domain.start()).hold
    await domain.running.checkpoint(hold, Checkpoint(messages=[CALL], tree=SavedTree(None, {}, is_behind=True)))
    await domain.cancelling.request(domain.client, hold.job_id)
    await domain.running.cancelled(hold, left=replace(LEFT, tree=SavedTree(patch, {}, is_behind=patch is None)))
    assert [row["is_behind"] for row in await domain.rows("SELECT is_behind FROM checkpoints")] == [patch is None]


async def test_nothing_that_is_stored_is_replaced(domain: Domain) -> None:
    hold = (await domain.start()).hold
    messages = [CALL, StoredMessage(2, "user", b"the result")]
    await domain.running.checkpoint(hold, Checkpoint(messages=messages, tree=SavedTree(b"the tree", {})))
    await domain.cancelling.request(domain.client, hold.job_id)
    await domain.running.cancelled(hold, left=LEFT)
    rows = await domain.rows("SELECT body FROM messages ORDER BY number")
    assert [row["body"] for row in rows] == [b"a call", b"the result"]
    assert [row["patch"] for row in await domain.rows("SELECT patch FROM checkpoints")] == [b"the tree"]
