"""Whole attempts over real servers: how each can end, and what is then stored."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from services.contracts import subjects
from services.contracts.words import EventKind, RunState
from services.runtime.jetstream import Message
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import call, hanging, refused, said, whole

READ = whole(said("Reading."), call(1, "read_file", path="f.txt"))
EDIT = whole(call(2, "edit_file", path="f.txt", old_string="a", new_string="b"))
DONE = whole(call(3, "task_complete", summary="Changed a to b.", status="done"))
OVERLOADED = refused(529, "Overloaded", kind="overloaded_error")


async def test_a_change_is_made_stored_and_handed_on(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(READ, EDIT, DONE)
    run_id = await fleet.dispatch()
    run = await fleet.until_run(run_id, RunState.PUBLISHING)
    assert (run["summary"], run["turns"], run["attempt"], run["attempts_spent"]) == ("Changed a to b.", 3, 1, 0)
    assert (run["input_tokens"], run["output_tokens"]) == (30, 15)
    changeset = await fleet.changeset(run_id)
    assert changeset["state"] == "queued"
    assert b"-a\n+b\n" in changeset["patch"]
    assert f"Quarterdeck-Run: {run_id}" in changeset["commit_message"]
    assert [orjson.loads(body)["role"] for body in await fleet.transcript(run_id)] == ["user", "assistant"] * 3
    await fleet.until_released(run_id)
    assert await fleet.publications_ordered() == 1


async def test_what_is_told_of_a_run(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(READ, EDIT, DONE)
    run_id = await fleet.dispatch()
    await fleet.until_run(run_id, RunState.PUBLISHING)
    kinds = await fleet.kinds(run_id)
    assert kinds[kinds.index("run.started") :] == [
        *("run.started", "job.started", "run.prepared", "turn.started"),
        *("turn.ended", "usage", "tool.started", "tool.ended", "turn.started"),
        *("turn.ended", "usage", "tool.started", "tool.ended", "file.changed", "turn.started"),
        *("turn.ended", "usage", "tool.started", "changeset.stored", "run.publishing"),
    ]


async def test_the_request_of_a_turn_begins_with_the_one_before(fleet: Fleet, start_agent: StartAgent):
    """What was sent once is sent again in every byte: caching and thinking rest on it."""
    await start_agent()
    fleet.model.answer(READ, EDIT, DONE)
    run_id = await fleet.dispatch()
    await fleet.until_run(run_id, RunState.PUBLISHING)
    first, second, third = fleet.model.requests
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert third["messages"][: len(second["messages"])] == second["messages"]
    assert [orjson.dumps(message) for message in third["messages"]] == (await fleet.transcript(run_id))[:-1]
    for part in ("system", "tools", "model", "max_tokens"):
        assert first[part] == second[part] == third[part]


async def test_nothing_changed_is_no_changeset(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(READ, DONE)
    run = await fleet.until_run(await fleet.dispatch(), RunState.COMPLETED, RunState.FAILED)
    assert (run["state"], run["outcome"]) == ("completed", "no_changes")


async def test_what_is_not_to_be_published_is_stored(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(READ, EDIT, DONE)
    run_id = await fleet.dispatch(publish="none")
    run = await fleet.until_run(run_id, RunState.COMPLETED, RunState.FAILED)
    assert (run["state"], run["outcome"]) == ("completed", "stored")
    assert (await fleet.changeset(run_id))["state"] == "stored"


async def test_a_task_without_a_repository_is_answered(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(whole(call(1, "task_complete", summary="Forty-two.", status="done")))
    run = await fleet.until_run(await fleet.dispatch(kind="task", repositories=[]), RunState.COMPLETED, RunState.FAILED)
    assert (run["state"], run["outcome"], run["summary"]) == ("completed", "answered", "Forty-two.")
    offered = {tool["name"] for tool in fleet.model.requests[0]["tools"]}
    assert "ask_user" in offered
    assert not offered & {"write_file", "edit_file", "delete_file", "move_file"}


async def test_the_next_attempt_goes_on_where_the_one_before_stopped(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(READ, EDIT, OVERLOADED, OVERLOADED, DONE)
    run_id = await fleet.dispatch()
    await fleet.until_run(run_id, RunState.QUEUED)
    stored = await fleet.transcript(run_id)
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.PUBLISHING)
    assert (run["turns"], run["attempt"]) == (3, 2)
    assert (await fleet.transcript(run_id))[:-1] == stored
    asked, again = fleet.model.requests[-2:]
    assert asked == again, "the resumed request is the same"
    assert b"-a\n+b\n" in (await fleet.changeset(run_id))["patch"]


async def test_a_new_attempt_tells_watchers_to_forget_the_deltas_before(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    resets: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def hear(message: Message) -> None:
        resets.put_nowait(orjson.loads(message.data))

    fleet.model.answer(READ, OVERLOADED, OVERLOADED, DONE)
    run_id = await fleet.dispatch()
    await fleet.until_run(run_id, RunState.QUEUED)
    job_id = str((await fleet.run(run_id))["job_id"])
    await fleet.bus.listen(subjects.event(job_id, str(run_id), EventKind.TURN_RESET), hear)
    await fleet.again(run_id)
    await fleet.until_run(run_id, RunState.COMPLETED)
    async with asyncio.timeout(30):
        reset = await resets.get()
    assert reset["attempt"] == 2
    assert reset["turnReset"]["turn"] == 2


async def test_a_long_wait_gives_the_slot_back_and_costs_nothing(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(refused(429, "Slow down", kind="rate_limit_error", retry_after="3600"))
    run = await fleet.until_run(await fleet.dispatch(), RunState.QUEUED, RunState.FAILED)
    assert (run["state"], run["attempts_spent"]) == ("queued", 0)
    assert run["not_before"] > datetime.now(UTC) + timedelta(minutes=55)


async def test_a_turn_that_would_come_after_the_deadline_gives_the_slot_back(fleet: Fleet, start_agent: StartAgent):
    """It would fail without having asked; so would others with the same key."""
    await start_agent()
    fleet.model.answer(refused(429, "Slow down", kind="rate_limit_error", retry_after="120"))
    for _ in range(2):
        run = await fleet.until_run(await fleet.dispatch(deadlineSeconds=60), RunState.QUEUED, RunState.FAILED)
        assert (run["state"], run["attempts_spent"]) == ("queued", 0)
        wait = run["not_before"] - datetime.now(UTC)
        assert timedelta(seconds=90) < wait < timedelta(seconds=125)
    assert len(fleet.model.requests) == 1


async def test_the_deadline_ends_an_attempt_that_hangs(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(hanging())
    run = await fleet.until_run(await fleet.dispatch(deadlineSeconds=1), RunState.FAILED)
    assert (run["exit_reason"], run["error"]) == ("timed_out", "not finished within 1 s")
    await fleet.model.until(fleet.model.gone)


async def test_another_attempt_has_only_the_time_that_is_left(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(READ, OVERLOADED, OVERLOADED)
    run_id = await fleet.dispatch(deadlineSeconds=3_600)
    await fleet.until_run(run_id, RunState.QUEUED)
    await fleet.domain.execute("UPDATE runs SET time_left = interval '0 seconds'")
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.FAILED, RunState.QUEUED)
    assert (run["state"], run["exit_reason"], run["attempts_spent"]) == ("failed", "timed_out", 2)
    assert len(fleet.model.requests) == 3, "the model was not asked again"
    await fleet.until_released(run_id)
