"""Whole runs within budgets: what they ask for, where they stop, how they go on, and what is counted of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from quarterdeck.offline_model.stream import events
from services.contracts import subjects
from services.contracts.spending import Budgets
from services.contracts.words import EventKind, RunState
from services.jobs.models import Client
from services.jobs.spending import BudgetSetting
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet, make_repository
from tests.integration.agent.looking import answers, told, work
from tests.integration.agent.messages_server import Answer, Json, call, hanging, whole
from tests.integration.agent.sandboxes import confined

PRICED = "claude-sonnet-4-5"
"""3 USD a million tokens of input, 15 of output."""
LEAST_TOKENS = 1_024
MOST_OF_ONE_REQUEST = 10_000
"""Tokens that an agent reckons with for one of these runs' requests, and more."""
READ = call(1, "read_file", path="f.txt")
EDIT = call(2, "edit_file", path="f.txt", old_string="a", new_string="b")
DONE = call(3, "task_complete", summary="Changed a to b.", status="done")


def using(input_tokens: int, output_tokens: int, *blocks: Json) -> Answer:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": PRICED, "content": blocks}
    usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    return Answer(
        [data for _, data in events({**message, "stop_reason": "tool_use", "stop_sequence": None, "usage": usage})]
    )


async def set_budgets(fleet: Fleet, **budgets: Any) -> None:
    client = fleet.domain.client
    operator = Client(client.id, client.name, is_operator=True)
    await BudgetSetting(fleet.domain.database).replace(operator, Budgets.model_validate(budgets))


async def test_a_budget_in_tokens_ends_the_run_and_a_higher_one_lets_it_go_on(fleet: Fleet, start_agent: StartAgent):
    await start_agent(CLAUDE_MAX_TOKENS=8_000)
    fleet.model.answer(using(7_000, 500, READ), using(7_000, 500, EDIT))
    run = await work(fleet, runBudget={"tokens": 20_000})
    assert (run["state"], run["exit_reason"]) == ("failed", "budget_exhausted")
    assert run["error"].startswith("the run's budget is 20,000 tokens: 5,000 tokens are left of it")
    first, second = fleet.model.requests
    assert first["max_tokens"] == 8_000
    assert LEAST_TOKENS < second["max_tokens"] < 20_000 - 7_500 - 7_000, "lowered to what its input leaves"
    again = await retried(fleet, run["job_id"], runBudget={"tokens": 100_000})
    transcript = await fleet.transcript(run["id"])
    third = fleet.model.requests[2]
    assert [orjson.dumps(message) for message in third["messages"]] == transcript
    assert (third["system"], third["tools"]) == (second["system"], second["tools"])
    assert (await fleet.transcript(again))[: len(transcript)] == transcript
    assert b"-a\n+b\n" in (await fleet.changeset(again))["patch"], "its work was kept"


async def test_what_a_command_came_to_is_kept_where_the_budget_ends_behind_it(fleet: Fleet, start_agent: StartAgent):
    await start_agent(CLAUDE_MAX_TOKENS=2_000, sandbox=await confined())
    fleet.model.answer(using(18_000, 500, call(1, "run_command", command="echo b > f.txt")))
    run = await work(fleet, permissionMode="bypassPermissions", runBudget={"tokens": 20_000})
    assert run["exit_reason"] == "budget_exhausted"
    again = await retried(fleet, run["job_id"], runBudget={"tokens": 100_000})
    assert (await answers(fleet, again))["toolu_1"]["content"].startswith("Exit code 0")
    assert b"-a\n+b\n" in (await fleet.changeset(again))["patch"]


async def retried(fleet: Fleet, job_id: UUID, **options: Any) -> UUID:
    """Let the job go on from its checkpoint with other options, to its end; its new run."""
    fleet.model.answer(whole(DONE))
    job_id = await fleet.domain.retry(job_id, resume=True, options=options)
    (order,) = await fleet.order(job_id)
    await fleet.until_run(order.run_id, RunState.PUBLISHING, RunState.COMPLETED, RunState.FAILED)
    return order.run_id


async def test_a_budget_in_usd_lowers_what_replies_may_come_to(fleet: Fleet, start_agent: StartAgent):
    await start_agent(CLAUDE_MODEL=PRICED, CLAUDE_MAX_TOKENS=8_000)
    fleet.model.answer(using(3_000, 500, READ), using(3_000, 1_500, EDIT))
    run = await work(fleet, runBudget={"usd": 0.06})
    assert (run["state"], run["exit_reason"]) == ("failed", "budget_exhausted")
    assert run["error"].startswith("the run's budget is 0.06 USD: 0.012 USD are left of it")
    assert run["cost_microusd"] == 48_000
    first, second = (request["max_tokens"] for request in fleet.model.requests)
    assert LEAST_TOKENS <= second < first < 60_000 / 15, "all of it would be spent on output alone"
    again = await retried(fleet, run["job_id"], runBudget={"usd": 1})
    assert fleet.model.requests[2]["max_tokens"] == 8_000
    assert b"-a\n+b\n" in (await fleet.changeset(again))["patch"]


async def test_a_model_without_a_price_is_refused_under_a_budget_in_usd(fleet: Fleet, start_agent: StartAgent):
    await start_agent(run_budget_usd=5.0)
    run = await work(fleet)
    assert (run["state"], run["exit_reason"]) == ("failed", "budget_exhausted")
    assert "claude-scripted is unpriced" in run["error"]
    assert fleet.model.requests == []
    fleet.model.answer(whole(READ), whole(DONE))
    run = await work(fleet, allowUnpriced=True)
    assert (run["outcome"], run["unpriced_turns"]) == ("no_changes", 2)
    usages = await told(fleet, run["id"], EventKind.USAGE)
    assert [(each["isUnpriced"], "costUsd" in each) for each in usages] == [(True, False)] * 2


async def test_a_day_s_budget_stops_a_run_that_is_under_way(fleet: Fleet, start_agent: StartAgent):
    agent = await start_agent()
    fleet.model.answer(hanging(READ))
    run_id = await fleet.dispatch()
    await fleet.model.until(fleet.model.waits)
    await set_budgets(fleet, day={"tokens": 1})
    await fleet.bus.ring(subjects.BUDGETS)
    await fleet.until(agent.has_heard_of_budgets)
    fleet.model.go_on.set()
    run = await fleet.until_run(run_id, RunState.FAILED)
    assert run["exit_reason"] == "budget_exhausted"
    assert run["error"].startswith("the budget of all clients for the day ")
    assert len(fleet.model.requests) == 1
    assert len(await fleet.transcript(run_id)) == 3, "what it had done is kept"
    await set_budgets(fleet)
    fleet.model.answer(whole(DONE))
    (order,) = await fleet.order(await fleet.domain.retry(run["job_id"], resume=True))
    run = await fleet.until_run(order.run_id, RunState.COMPLETED, RunState.FAILED)
    assert run["outcome"] == "no_changes"


async def test_a_day_s_budget_nobody_was_told_of_stops_a_run_a_turn_later(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(hanging(READ), whole(READ), whole(DONE))
    run_id = await fleet.dispatch()
    await fleet.model.until(fleet.model.waits)
    await set_budgets(fleet, day={"tokens": 1})
    fleet.model.go_on.set()
    run = await fleet.until_run(run_id, RunState.FAILED)
    assert run["exit_reason"] == "budget_exhausted"
    assert len(fleet.model.requests) <= 2


async def test_the_runs_of_a_job_stay_within_its_budget_together(fleet: Fleet, start_agent: StartAgent, tmp_path: Path):
    await start_agent(CLAUDE_MAX_TOKENS=2_000)
    fleet.model.answer(*(using(1_000, 1_000, looking(number)) for number in range(100)))
    two = [fleet.repository, make_repository(tmp_path, "second")]
    job_id = await fleet.submit(repositories=two, jobBudget={"tokens": 30_000})
    run_ids = [order.run_id for order in await fleet.order(job_id)]
    runs = [await fleet.until_run(run_id, RunState.FAILED, RunState.COMPLETED) for run_id in run_ids]
    assert all(run["error"].startswith("this job's budget is 30,000 tokens: ") for run in runs)
    assert 20_000 < sum(run["input_tokens"] + run["output_tokens"] for run in runs) <= 30_000


async def test_what_is_told_and_stored_of_usage_adds_up(fleet: Fleet, start_agent: StartAgent):
    await start_agent(CLAUDE_MODEL=PRICED)
    fleet.model.answer(using(3_001, 7, READ), using(2_000, 11, EDIT), using(5, 900, DONE))
    run = await work(fleet)
    usages = await told(fleet, run["id"], EventKind.USAGE)
    rows = await fleet.domain.rows("SELECT * FROM model_usage WHERE run_id = $1 ORDER BY turn", run["id"])
    (spending,) = await fleet.domain.rows("SELECT * FROM spending")
    costs = [3 * 3_001 + 15 * 7, 3 * 2_000 + 15 * 11, 3 * 5 + 15 * 900]
    assert [row["cost_microusd"] for row in rows] == costs
    assert [round(each["costUsd"] * 1_000_000) for each in usages] == costs
    assert round(usages[-1]["runCostUsd"] * 1_000_000) == run["cost_microusd"] == spending["microusd"] == sum(costs)
    assert [row["input_tokens"] + row["output_tokens"] for row in rows] == [3_008, 2_011, 905]
    assert [each["tokens"]["inputTokens"] + each["tokens"]["outputTokens"] for each in usages] == [3_008, 2_011, 905]
    assert run["input_tokens"] + run["output_tokens"] == spending["tokens"] == 3_008 + 2_011 + 905
    assert [row["raw"]["output_tokens"] for row in rows] == [7, 11, 900]


@pytest.mark.parametrize(
    ("input_tokens", "at_most"), [(500, 0), (3_000, 30)], ids=["as reckoned", "more than reckoned"]
)
async def test_thirty_at_once_pass_a_day_s_budget_by_a_turn_each_at_most(
    fleet: Fleet, start_agent: StartAgent, input_tokens: int, at_most: int
):
    budget, turn = 150_000, input_tokens + 1_000
    await set_budgets(fleet, day={"tokens": budget})
    fleet.model.answer(*(using(input_tokens, 1_000, looking(number)) for number in range(400)))
    await start_agent(capacity=30)
    job_ids = [await fleet.submit(kind="task", repositories=[]) for _ in range(30)]
    run_ids = [order.run_id for order in await fleet.order(*job_ids)]
    runs = await asyncio.gather(*(fleet.until_run(run_id, RunState.FAILED, RunState.COMPLETED) for run_id in run_ids))
    assert {run["exit_reason"] for run in runs} == {"budget_exhausted"}
    (spending,) = await fleet.domain.rows("SELECT tokens FROM spending")
    assert spending["tokens"] == len(fleet.model.requests) * turn
    assert spending["tokens"] <= budget + at_most * turn
    assert spending["tokens"] > budget - MOST_OF_ONE_REQUEST, "it is used up"
    assert await fleet.domain.rows("SELECT FROM reservations") == []


def looking(number: int) -> Json:
    """A call that no other is like."""
    return call(number, "list_files", directory=".", limit=number + 1)
