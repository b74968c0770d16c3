"""A run that goes on from another that had ended by itself: its model is asked again, not taken at its old word."""

from __future__ import annotations

from services.agent.prompts import prompt
from services.contracts.words import ExitReason, RunState
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.looking import answers, words_to_the_model, work
from tests.integration.agent.messages_server import call, whole

BLOCKED = whole(call(1, "task_complete", summary="No such file.", status="blocked"))
DONE = whole(call(2, "task_complete", summary="There is nothing to do.", status="done"))


async def test_a_blocked_run_that_is_retried_from_where_it_stopped_is_asked_again(
    fleet: Fleet, start_agent: StartAgent
):
    await start_agent()
    fleet.model.answer(BLOCKED, DONE)
    run = await work(fleet)
    assert (run["state"], run["exit_reason"]) == ("failed", ExitReason.BLOCKED)

    (order,) = await fleet.order(await fleet.domain.retry(run["job_id"], resume=True))
    again = await fleet.until_run(order.run_id, RunState.COMPLETED, RunState.FAILED)

    assert (again["state"], again["outcome"], again["summary"]) == (
        "completed",
        "no_changes",
        "There is nothing to do.",
    )
    assert (await answers(fleet, again["id"]))["toolu_1"]["content"] == "Noted."
    assert (await words_to_the_model(fleet, again["id"]))[-1] == prompt("go_on")
