"""A run that goes on from another one, wherever that had ended: its model is asked again, not taken at its old word,
and finds all that was done.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from services.agent.answering import CANCELLED
from services.agent.endings import RunFailedError
from services.agent.prompts import prompt
from services.agent.sandbox import Sandbox
from services.agent.vcs_client import VcsClient, VcsFailedError
from services.contracts.words import EventKind, ExitReason, RunState
from services.jobs.models import Checkpoint, Commit, Hold, Standing
from services.jobs.running import Running
from services.runtime.postgres import Record
from tests.integration.agent.agents import HeldVcs, QuietHeartbeat, StartAgent
from tests.integration.agent.fleet import VCS_TOKEN, Fleet
from tests.integration.agent.looking import answers, told, words_to_the_model, work
from tests.integration.agent.messages_server import Answer, call, hanging, said, whole

ENDS = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)
ANY_COMMAND = {"permissionMode": "bypassPermissions", "publish": "none"}
BLOCKED = whole(call(1, "task_complete", summary="No such file.", status="blocked"))
READ = whole(call(1, "read_file", path="f.txt"))
DONE = whole(call(99, "task_complete", summary="There is nothing left to do.", status="done"))
MADE = "echo made >> made.txt; cat made.txt"


class CancelledBehind(Running):
    """Its user cancels the run as soon as so many checkpoints are stored, and nobody tells the agent."""

    def __init__(self, fleet: Fleet, checkpoints: int) -> None:
        super().__init__(fleet.domain.units)
        self._fleet = fleet
        self._missing = checkpoints

    async def checkpoint(self, hold: Hold, checkpoint: Checkpoint) -> Standing:
        standing = await super().checkpoint(hold, checkpoint)
        self._missing -= 1
        if self._missing == 0:
            await self._fleet.cancel(hold.run_id, tell=False)
        return standing


def last_turn(*blocks: Any, status: str = "done") -> Answer:
    return whole(*blocks, call(9, "task_complete", summary="So far.", status=status))


EDIT = call(2, "edit_file", path="f.txt", old_string="a", new_string="b")


async def gone_on(fleet: Fleet, run: Record, **options: Any) -> Record:
    """What comes of another run from where ``run`` ended, whose model has been asked at least once."""
    times_asked = len(fleet.model.requests)
    (order,) = await fleet.order(await fleet.domain.retry(run["job_id"], resume=True, options=options))
    again = await fleet.until_run(order.run_id, *ENDS)
    assert len(fleet.model.requests) > times_asked
    return again


async def patch(fleet: Fleet, run_id: UUID) -> bytes:
    content: bytes = (await fleet.changeset(run_id))["patch"]
    return content


@pytest.fixture
async def sandbox() -> Sandbox:
    return await Sandbox.find("none")


async def test_a_blocked_run_that_is_retried_from_where_it_stopped_is_asked_again(
    fleet: Fleet, start_agent: StartAgent
):
    await start_agent()
    fleet.model.answer(BLOCKED, DONE)
    run = await work(fleet)
    assert (run["state"], run["exit_reason"]) == ("failed", ExitReason.BLOCKED)
    again = await gone_on(fleet, run)
    assert (again["state"], again["outcome"], again["summary"]) == (
        "completed",
        "no_changes",
        "There is nothing left to do.",
    )
    assert (await answers(fleet, again["id"]))["toolu_1"]["content"] == "Noted."
    assert (await words_to_the_model(fleet, again["id"]))[-1] == prompt("go_on")


async def test_what_was_done_beside_the_words_that_it_is_blocked_is_kept(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(last_turn(call(1, "run_command", command=MADE), status="blocked"), DONE)
    run = await work(fleet, **ANY_COMMAND)
    assert run["exit_reason"] == ExitReason.BLOCKED
    again = await gone_on(fleet, run)
    assert again["outcome"] == "stored"
    assert b"+made\n" in await patch(fleet, again["id"])
    assert "made" in (await answers(fleet, again["id"]))["toolu_1"]["content"]
    assert (await words_to_the_model(fleet, again["id"]))[-1] == prompt("go_on")


async def test_one_that_repeated_itself_begins_to_count_anew(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    same = whole(call(1, "run_command", command="echo made >> made.txt"))
    fleet.model.answer(*[same] * 4)
    run = await work(fleet, **ANY_COMMAND)
    assert (run["exit_reason"], run["turns"]) == (ExitReason.STUCK, 4)
    fleet.model.answer(same, same, DONE)
    again = await gone_on(fleet, run)
    assert (again["outcome"], (await patch(fleet, again["id"])).count(b"+made\n")) == ("stored", 6)


async def test_how_much_patience_there_is_the_job_says(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(*[READ] * 2)
    run = await work(fleet, maxIdenticalCalls=2)
    assert (run["exit_reason"], run["error"]) == (ExitReason.STUCK, "made the same call 2 times in a row")
    fleet.model.answer(whole(call(1, "read_file", road="f.txt")))
    run = await work(fleet, maxMalformedTurns=1)
    assert (run["exit_reason"], run["turns"]) == (ExitReason.STUCK, 1)
    fleet.model.answer(whole(said("A long"), stop="max_tokens"))
    run = await work(fleet, maxCutOffs=0)
    assert (run["exit_reason"], run["turns"]) == (ExitReason.STUCK, 1)


@pytest.mark.parametrize("ends_in_text", [True, False])
async def test_an_unverified_run_goes_on_with_its_change(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, ends_in_text: bool
):
    await start_agent(sandbox=sandbox)
    text = whole(said("All done."), stop="end_turn")
    fleet.model.answer(READ, *([whole(EDIT), text, text] if ends_in_text else [last_turn(EDIT)]))
    run = await work(fleet, testCommand="grep c f.txt", maxFixAttempts=0, publish="none")
    assert run["outcome"] == "unverified"
    fleet.model.answer(whole(call(3, "edit_file", path="f.txt", old_string="b", new_string="c")), DONE)
    again = await gone_on(fleet, run)
    assert again["outcome"] == "stored"
    assert b"-a\n+c\n" in await patch(fleet, again["id"])
    assert (await words_to_the_model(fleet, again["id"]))[-1] == prompt("go_on")


async def test_a_command_of_the_last_turn_is_not_run_again_by_who_goes_on(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    """The run had completed: what its last command came to is known, and in the tree."""
    await start_agent(sandbox=sandbox)
    fleet.model.answer(last_turn(call(1, "run_command", command=MADE)), DONE)
    run = await work(fleet, **ANY_COMMAND)
    assert run["outcome"] == "stored"
    again = await gone_on(fleet, run)
    assert (await patch(fleet, again["id"])).count(b"+made\n") == 1
    assert "made" in (await answers(fleet, again["id"]))["toolu_1"]["content"]


class BrokenVcs(VcsClient):
    """Can make no commit."""

    async def commit(self, *_: object) -> Commit | None:
        raise VcsFailedError(ExitReason.INTERNAL, "no commit can be made", retryable=False)


async def test_one_that_failed_behind_its_last_turn_goes_on_with_all_of_it(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    first = await start_agent(sandbox=sandbox, vcs=BrokenVcs(fleet.vcs_address, VCS_TOKEN))
    fleet.model.answer(last_turn(call(1, "run_command", command=MADE)))
    run = await work(fleet, **ANY_COMMAND)
    assert (run["state"], run["exit_reason"]) == ("failed", ExitReason.INTERNAL)
    await first.drain(0.1)
    await start_agent(sandbox=sandbox)
    fleet.model.answer(DONE)
    again = await gone_on(fleet, run)
    assert (await patch(fleet, again["id"])).count(b"+made\n") == 1


class NoDelivery(Running):
    """The attempt breaks just before its end would be recorded."""

    async def deliver(self, *_: Any, **__: Any) -> UUID:
        raise RunFailedError(ExitReason.INTERNAL, "broken", retryable=True)


async def test_an_attempt_that_finds_the_end_of_another_tells_of_no_turn(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    first = await start_agent(sandbox=sandbox, running=NoDelivery(fleet.domain.units))
    fleet.model.answer(last_turn(call(1, "run_command", command=MADE)))
    run_id = await fleet.dispatch(**ANY_COMMAND)
    await fleet.until_run(run_id, RunState.QUEUED)
    await first.drain(0.1)
    await start_agent(sandbox=sandbox)
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, *ENDS)
    assert (run["outcome"], run["attempt"], len(fleet.model.requests)) == ("stored", 2, 1)
    assert [each["turn"] for each in await told(fleet, run_id, EventKind.TURN_STARTED)] == [1]


async def test_one_that_ran_out_of_turns_while_its_tests_went_back_goes_on_with_its_change(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(READ, last_turn(EDIT))
    run = await work(fleet, testCommand="grep c f.txt", publish="none", maxTurns=2)
    assert run["exit_reason"] == ExitReason.MAX_TURNS
    fleet.model.answer(whole(call(3, "edit_file", path="f.txt", old_string="b", new_string="c")), DONE)
    again = await gone_on(fleet, run, maxTurns=10)
    assert again["outcome"] == "stored"
    assert b"-a\n+c\n" in await patch(fleet, again["id"])


async def test_one_whose_first_attempt_was_interrupted_before_it_asked_goes_on_all_the_same(
    fleet: Fleet, start_agent: StartAgent
):
    first = await start_agent()
    fleet.model.answer(BLOCKED)
    run = await work(fleet)
    await first.drain(0.1)
    vcs = HeldVcs(fleet, "behind prepare")
    held = await start_agent(vcs=vcs)
    (order,) = await fleet.order(await fleet.domain.retry(run["job_id"], resume=True))
    await vcs.until_reached()
    await held.drain(0.1)
    await fleet.until_run(order.run_id, RunState.QUEUED)
    fleet.model.answer(DONE)
    await start_agent()
    await fleet.again(order.run_id)
    again = await fleet.until_run(order.run_id, *ENDS)
    assert (again["outcome"], again["attempt"]) == ("no_changes", 2)


async def test_its_first_command_is_made(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(BLOCKED, whole(call(2, "run_command", command=MADE)), DONE)
    run = await work(fleet, **ANY_COMMAND)
    again = await gone_on(fleet, run)
    assert (await answers(fleet, again["id"]))["toolu_2"]["content"].endswith("\nmade")
    assert b"+made\n" in await patch(fleet, again["id"])


async def test_an_agent_that_is_drained_while_tests_go_back_loses_nothing(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    first = await start_agent(sandbox=sandbox)
    fleet.model.answer(READ, last_turn(EDIT, call(3, "read_file", path="f.txt")), hanging(said("Well.")))
    run_id = await fleet.dispatch(testCommand="false", maxFixAttempts=1, publish="none")
    await fleet.model.until(fleet.model.waits)
    await first.drain(0.1)
    await fleet.until_run(run_id, RunState.QUEUED)
    fleet.model.answer(DONE)
    await start_agent(sandbox=sandbox)
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, *ENDS)
    assert (run["outcome"], run["attempt"]) == ("unverified", 2)
    assert b"-a\n+b\n" in await patch(fleet, run_id)
    assert fleet.model.requests[-1]["messages"] == fleet.model.requests[-2]["messages"]
    given = await answers(fleet, run_id)
    assert given["toolu_3"]["content"].startswith("1\tb")
    ended = [each["toolUseId"] for each in await told(fleet, run_id, EventKind.TOOL_ENDED)]
    assert ended == ["toolu_1", "toolu_2", "toolu_3", "toolu_9"]


async def test_a_call_that_was_cancelled_says_so_to_who_goes_on(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(whole(EDIT, call(1, "run_command", command="echo x > f.txt; sleep 60")))
    run_id = await fleet.dispatch(**ANY_COMMAND)

    async def runs() -> bool:
        return EventKind.TOOL_STARTED in await fleet.kinds(run_id)

    await fleet.until(runs)
    await fleet.cancel(run_id, tell=True)
    run = await fleet.until_run(run_id, RunState.CANCELLED)
    given = await answers(fleet, run_id)
    assert {each["content"] for each in given.values()} == {CANCELLED}
    assert all(each["isError"] for each in await told(fleet, run_id, EventKind.TOOL_ENDED))
    fleet.model.answer(DONE)
    again = await gone_on(fleet, run)
    assert again["outcome"] == "no_changes", "the worktree is as it was before the turn"
    assert (await answers(fleet, again["id"]))["toolu_1"] == given["toolu_1"]
    assert (await words_to_the_model(fleet, again["id"]))[-1] == prompt("go_on")


@pytest.mark.parametrize("checkpoint", [1, 2])
async def test_what_was_done_is_kept_where_the_cancel_is_heard_by_a_refusal(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, checkpoint: int
):
    """Behind the reply what its calls came to is refused; behind those it is the message with them, at the end."""
    await start_agent(sandbox=sandbox, running=CancelledBehind(fleet, checkpoint), heartbeat=QuietHeartbeat)
    fleet.model.answer(last_turn(call(1, "run_command", command=MADE), status="blocked"), DONE)
    run_id = await fleet.dispatch(**ANY_COMMAND)
    run = await fleet.until_run(run_id, RunState.CANCELLED)
    ended = [each["toolUseId"] for each in await told(fleet, run_id, EventKind.TOOL_ENDED)]
    assert ended == ["toolu_1", "toolu_9"]
    again = await gone_on(fleet, run)
    assert (await answers(fleet, again["id"]))["toolu_1"]["content"].endswith("\nmade")
    assert b"+made\n" in await patch(fleet, again["id"])


async def test_what_was_done_is_kept_where_the_run_is_cancelled_while_its_tests_run(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(last_turn(call(1, "run_command", command=MADE)))
    run_id = await fleet.dispatch(**ANY_COMMAND, testCommand="sleep 60")

    async def runs() -> bool:
        return EventKind.TESTS_STARTED in await fleet.kinds(run_id)

    await fleet.until(runs)
    await fleet.cancel(run_id, tell=True)
    run = await fleet.until_run(run_id, RunState.CANCELLED)
    fleet.model.answer(DONE)
    (order,) = await fleet.order(await fleet.domain.retry(run["job_id"], resume=True))
    await fleet.until(lambda: _is_asked(fleet, 2))
    given = await answers(fleet, order.run_id)
    assert given["toolu_1"]["content"].endswith("\nmade")
    (checkpoint,) = await fleet.domain.rows("SELECT patch FROM checkpoints WHERE run_id = $1", order.run_id)
    assert b"+made\n" in checkpoint["patch"]


async def _is_asked(fleet: Fleet, times: int) -> bool:
    return len(fleet.model.requests) >= times
