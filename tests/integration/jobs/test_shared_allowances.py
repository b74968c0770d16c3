"""Thirty agents' allowances over one day's budget in USD: it is used up to within a turn, and never overdrawn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial

import pytest

from services.agent.allowance import LEAST_OUTPUT_TOKENS, Allowance, BudgetExhaustedError
from services.agent.model.prices import worst_microusd
from services.jobs.budgeting import Budgeting
from services.jobs.models import Checkpoint, ClaimedRun, ModelUse, Spent, Usage
from services.runtime.postgres import Database
from tests.integration.jobs.domain import Domain
from tests.integration.jobs.test_budgeting import AGENTS, set_budgets, spender

MODEL = "claude-sonnet-5-5"
MAX_TOKENS = 64_000
BUDGET_USD = 6.0
TURN_BYTES = 6_000


@pytest.fixture
async def wide(domain_database_url: str) -> AsyncIterator[Database]:
    """With a connection for each agent."""
    database = Database(domain_database_url, size=AGENTS, name="test agents")
    yield database
    await database.close()


async def soon(_: float) -> None:
    await asyncio.sleep(0.01)


async def work(domain: Domain, wide: Database, run: ClaimedRun) -> str:
    """Turns until the budget is exhausted, each of some output up to all that is allowed; return the words."""
    allowance = Allowance(
        model=MODEL,
        spent=Spent(),
        run_budget=None,
        job_budget=None,
        allow_unpriced=False,
        is_budgeted=True,
        reserve=partial(Budgeting(wide).reserve, run.hold, client_id=run.client_id),
        news=lambda: 0,
        news_known=0,
        pause=soon,
    )
    request_bytes = 0
    while True:
        request_bytes += TURN_BYTES
        try:
            most = await allowance.before(request_bytes, MAX_TOKENS)
        except BudgetExhaustedError as error:
            return str(error)
        use = Usage(output_tokens=random.randint(100, most), cache_creation_input_tokens=request_bytes // 4)
        cost = allowance.used(use, request_bytes=request_bytes)
        standing = await domain.running.checkpoint(run.hold, Checkpoint(usage=ModelUse(use, MODEL, cost)))
        allowance.heard(is_budgeted=standing.is_budgeted)


async def test_thirty_agents_use_up_a_days_budget_in_usd(domain: Domain, wide: Database) -> None:
    runs = [(await spender(domain)).run for _ in range(AGENTS)]
    await set_budgets(domain, day={"usd": BUDGET_USD})

    async with asyncio.timeout(60):
        words = await asyncio.gather(*(work(domain, wide, run) for run in runs))

    (row,) = await domain.rows(
        "SELECT (SELECT sum(microusd) FROM spending)::bigint AS spent, max(turns) AS turns,"
        " sum(cost_microusd)::bigint AS cost, sum(unpriced_turns) AS unpriced FROM runs"
    )
    # What is left is less than the least that anybody's next turn would have needed.
    next_turn = worst_microusd(
        MODEL, input_tokens=(row["turns"] + 1) * TURN_BYTES // 3, output_tokens=LEAST_OUTPUT_TOKENS
    )
    assert next_turn is not None
    assert BUDGET_USD * 1_000_000 - next_turn < row["spent"] <= BUDGET_USD * 1_000_000
    assert (row["cost"], row["unpriced"]) == (row["spent"], 0)
    assert all(each.startswith("the budget of all clients for the day") for each in words)
    assert await domain.rows("SELECT FROM reservations") == []
