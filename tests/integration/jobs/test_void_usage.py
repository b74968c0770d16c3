"""What was paid for in vain is counted once by the run, its client's day and the budgets, and ends no turn."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from services.contracts.agents import Budget
from services.jobs.budgeting import Budgeting
from services.jobs.errors import LeaseLostError
from services.jobs.models import Checkpoint, ClaimedRun, Hold, ModelUse, Usage, VoidUse
from tests.integration.jobs.domain import Domain

USED = Usage(input_tokens=1, output_tokens=2, cache_read_input_tokens=30, cache_creation_input_tokens=400)
USE = ModelUse(USED, "a-model", 7, {"output_is_estimated": True})


async def counted(domain: Domain, hold: Hold) -> tuple[Any, ...]:
    """The run's tokens, its microdollars, its turns; its client's tokens and microdollars."""
    run = await domain.row("runs", hold.run_id)
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    spent = await domain.rows("SELECT tokens, microusd FROM spending")
    return (
        sum(run[name] for name in names),
        run["cost_microusd"],
        run["turns"],
        *(tuple(row) for row in spent),
    )


async def test_it_is_counted_and_is_no_turn(domain: Domain) -> None:
    hold = (await domain.start()).hold
    unpriced = replace(USE, cost_microusd=None)
    await domain.running.count_void(hold, [VoidUse(USE), VoidUse(unpriced)])

    assert await counted(domain, hold) == (866, 7, 0, (866, 7))
    assert (await domain.row("runs", hold.run_id))["unpriced_turns"] == 0
    rows = await domain.rows("SELECT * FROM void_usage ORDER BY cost_microusd")
    assert [(row["model"], row["attempt"], row["cost_microusd"]) for row in rows] == [
        ("a-model", 1, 7),
        ("a-model", 1, None),
    ]
    assert rows[0]["raw"] == {"output_is_estimated": True}


async def test_told_again_it_is_counted_once(domain: Domain) -> None:
    hold = (await domain.start()).hold
    first, second = VoidUse(USE), VoidUse(USE)
    await asyncio.gather(*(domain.running.count_void(hold, [first]) for _ in range(5)))
    await domain.running.count_void(hold, [first, second])

    assert await counted(domain, hold) == (866, 14, 0, (866, 14))


async def test_a_reply_counts_unless_its_turn_was_stored_after_all(domain: Domain) -> None:
    hold = (await domain.start()).hold
    await domain.running.checkpoint(hold, Checkpoint(usage=USE))
    await domain.running.count_void(hold, [VoidUse(USE, turn=1)])
    assert await counted(domain, hold) == (433, 7, 1, (433, 7))

    await domain.running.count_void(hold, [VoidUse(USE, turn=2)])
    assert await counted(domain, hold) == (866, 14, 1, (866, 14))


async def test_a_cancel_that_was_asked_for_takes_nothing_away(domain: Domain) -> None:
    hold = (await domain.start()).hold
    await domain.cancelling.request(domain.client, hold.job_id)
    await domain.running.count_void(hold, [VoidUse(USE)])
    await domain.running.cancelled(hold)
    assert await counted(domain, hold) == (433, 7, 0, (433, 7))

    with pytest.raises(LeaseLostError):
        await domain.running.count_void(hold, [VoidUse(USE)])
    with pytest.raises(LeaseLostError):
        await domain.running.count_void(replace(hold, token=uuid4()), [VoidUse(USE)])
    assert await counted(domain, hold) == (433, 7, 0, (433, 7))


async def test_a_budget_has_it_in_place_of_what_was_reserved(domain: Domain) -> None:
    run = await domain.start()
    budgeting = Budgeting(domain.database)

    async def reserve(held: ClaimedRun, tokens: int) -> int | None:
        refusal = await budgeting.reserve(
            held.hold, client_id=held.client_id, tokens=tokens, microusd=0, job_budget=Budget(tokens=1_000)
        )
        return refusal.left.tokens if refusal else None

    assert await reserve(run, 900) is None
    await domain.running.count_void(run.hold, [VoidUse(USE)])
    assert await domain.rows("SELECT FROM reservations") == []
    assert await reserve(run, 568) == 567
    assert await reserve(run, 567) is None
