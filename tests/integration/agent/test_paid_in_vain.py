"""Replies that come to nothing are paid for all the same: budgets and usage count what was told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import orjson
import pytest

from services.contracts import subjects
from services.contracts.words import EventKind, RunState
from services.jobs.models import Hold, VoidUse
from services.jobs.running import Running
from services.runtime.jetstream import Message
from services.runtime.postgres import Record
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import DEADLINE_SECONDS, Fleet
from tests.integration.agent.looking import told, work
from tests.integration.agent.messages_server import Answer, call, chunks, event, hanging, said, whole

PRICED = "claude-sonnet-4-5"
"""3 USD a million tokens of input, 15 of output."""
DONE = whole(call(3, "task_complete", summary="Nothing to do.", status="done"))
STREAMED = said("x" * 3_000)
"""1,000 tokens by the estimate; its request has 10."""


def begun(*, input_tokens: int, output_tokens: int) -> list[bytes]:
    """A reply that tells of its usage, and goes no further."""
    message = {"id": "m", "type": "message", "role": "assistant", "model": PRICED, "content": []}
    return [
        event("message_start", message={**message, "usage": {"input_tokens": input_tokens, "output_tokens": 1}}),
        event("message_delta", delta={}, usage={"output_tokens": output_tokens}),
    ]


def tokens(row: Record) -> tuple[int, int]:
    return row["input_tokens"], row["output_tokens"]


async def spending(fleet: Fleet) -> tuple[int, int]:
    (row,) = await fleet.domain.rows("SELECT tokens, microusd FROM spending")
    return row["tokens"], row["microusd"]


async def until_streamed(fleet: Fleet) -> UUID:
    """A run whose reply has come, but for its end."""
    come: list[str] = []
    all_has_come = asyncio.Event()

    async def on_delta(message: Message) -> None:
        come.append(orjson.loads(message.data)["delta"]["text"])
        if len("".join(come)) == len(STREAMED["text"]):
            all_has_come.set()

    await fleet.bus.listen("qd.evt.*.*.delta", on_delta)
    fleet.model.answer(hanging(STREAMED))
    run_id = await fleet.dispatch()
    await fleet.model.until(all_has_come)
    return run_id


async def test_a_budget_counts_what_was_thrown_away_and_ends_the_run_before_the_next_try(
    fleet: Fleet, start_agent: StartAgent
):
    await start_agent()
    fleet.model.answer(Answer(begun(input_tokens=100_000, output_tokens=5_000), then="cut"), DONE)
    run = await work(fleet, runBudget={"tokens": 60_000})
    assert run["exit_reason"] == "budget_exhausted"
    assert run["error"].startswith("the run's budget is 60,000 tokens: 0 tokens are left of it")
    assert (tokens(run), run["turns"]) == ((100_000, 5_000), 0)
    assert len(fleet.model.requests) == 1


async def test_what_was_thrown_away_is_in_the_run_s_usage_beside_its_turns(fleet: Fleet, start_agent: StartAgent):
    await start_agent(CLAUDE_MODEL=PRICED)
    fleet.model.answer(Answer(begun(input_tokens=1_000, output_tokens=100), then="cut"), DONE)
    run = await work(fleet)
    assert (tokens(run), run["turns"]) == ((1_010, 105), 1)
    assert run["cost_microusd"] == 3 * 1_010 + 15 * 105
    assert await spending(fleet) == (1_115, run["cost_microusd"])
    (usage,) = await told(fleet, run["id"], EventKind.USAGE)
    assert round(usage["runCostUsd"] * 1_000_000) == run["cost_microusd"]
    (void,) = await fleet.domain.rows("SELECT * FROM void_usage")
    assert (void["run_id"], tokens(void)) == (run["id"], (1_000, 100))


async def test_it_is_stored_before_the_next_try_has_come_to_anything(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(Answer(begun(input_tokens=1_000, output_tokens=100), then="cut"), hanging(STREAMED))
    run_id = await fleet.dispatch()
    await fleet.model.until(fleet.model.waits)
    assert tokens(await fleet.run(run_id)) == (1_000, 100)


@pytest.mark.parametrize("is_told", [True, False], ids=["told at once", "found out at its end"])
async def test_a_cancelled_reply_is_paid_for(fleet: Fleet, start_agent: StartAgent, *, is_told: bool):
    """Also a whole one, whose checkpoint is refused since the cancel was accepted meanwhile."""
    await start_agent()
    run_id = await until_streamed(fleet)
    await fleet.cancel(run_id, tell=is_told)
    fleet.model.go_on.set()
    run = await fleet.until_run(run_id, RunState.CANCELLED)
    assert (run["input_tokens"], run["turns"]) == (10, 0)
    assert run["output_tokens"] in ({1_000, 5} if is_told else {5})
    assert await spending(fleet) == (sum(tokens(run)), 0)


class SlowCount(Running):
    """Counts what came to nothing when it is let go."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.domain.units)
        self.counts, self.go_on = asyncio.Event(), asyncio.Event()

    async def count_void(self, hold: Hold, uses: Sequence[VoidUse]) -> None:
        self.counts.set()
        await self.go_on.wait()
        await super().count_void(hold, uses)


async def test_a_cancel_that_is_heard_while_that_is_stored_does_not_lose_it(fleet: Fleet, start_agent: StartAgent):
    running = SlowCount(fleet)
    await start_agent(running=running)
    run_id = await until_streamed(fleet)
    await fleet.cancel(run_id, tell=False)
    fleet.model.go_on.set()
    await asyncio.wait_for(running.counts.wait(), DEADLINE_SECONDS)
    await fleet.tell_cancel(run_id)
    await fleet.tell_cancel(run_id)
    await fleet.bus.tell(subjects.orders((await fleet.run(run_id))["agent"]), b"")  # heard behind the cancel
    running.go_on.set()
    run = await fleet.until_run(run_id, RunState.CANCELLED)
    assert tokens(run) == (10, 5)


async def test_a_reply_that_is_cut_off_by_a_drain_is_paid_for(fleet: Fleet, start_agent: StartAgent):
    agent = await start_agent()
    run_id = await until_streamed(fleet)
    await agent.drain(0.1)
    assert tokens(await fleet.until_run(run_id, RunState.QUEUED)) == (10, 1_000)

    fleet.model.answer(DONE)
    await start_agent()
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.COMPLETED)
    assert (tokens(run), run["turns"]) == ((20, 1_005), 1)
    assert await spending(fleet) == (1_025, 0)


async def test_a_reply_that_fails_for_good_is_paid_for(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    error = {"type": "invalid_request_error", "message": "no such thing"}
    fleet.model.answer(Answer([*chunks(STREAMED)[:-2], event("error", error=error)]))
    run = await work(fleet)
    assert (run["exit_reason"], tokens(run), run["turns"]) == ("model_rejected", (10, 1_000), 0)
