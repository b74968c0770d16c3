"""Conversations over real servers: a run waits without a slot, and goes on anywhere with all that it had."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from quarterdeck.demo.git import commit_all, git
from services.contracts.rest import CompleteRequest
from services.jobs.errors import NotFoundError, NotWaitingError
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet, make_repository
from tests.integration.agent.messages_server import call, said, whole
from tests.integration.agent.talking import (
    ANSWER,
    MORE,
    READ,
    User,
    asks,
    ends,
    loops_in_memory,
    prefix_bytes,
    talk,
)


async def test_asked_answered_and_completed(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    user = await talk(fleet, READ, asks(2), ANSWER)
    assert (await user.until_waiting())["summary"] == "Which file?"
    await user.answers("f.txt")
    assert (await user.until_waiting())["summary"] == "It says a."
    await user.completes()
    run = await user.until_ended()
    assert (run["state"], run["outcome"], run["summary"]) == ("completed", "answered", "It says a.")
    assert (run["turns"], run["attempt"], run["attempts_spent"]) == (3, 2, 0)
    messages = await user.transcript()
    assert messages[-2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_2", "content": "f.txt"}]
    kinds = await fleet.kinds(user.run_id)
    told = [kind for kind in kinds if kind.startswith(("run.", "job."))]
    assert told[told.index("run.waiting") :] == [
        *("run.waiting", "run.message", "run.requeued"),
        *("run.started", "run.prepared", "run.waiting", "run.finished", "job.finished"),
    ]
    assert await user.unread() == []


async def test_a_run_that_waits_holds_nothing(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    user = await talk(fleet, READ, ANSWER)
    await user.until_waiting()
    await fleet.until_released(user.run_id)

    async def nothing_is_left() -> bool:
        return loops_in_memory() == 0

    await fleet.until(nothing_is_left)
    assert await fleet.domain.rows("SELECT FROM leases") == []
    run = await fleet.run(user.run_id)
    assert (run["agent"], run["lease_token"], run["run_deadline"]) == (None, None, None)


async def test_the_slot_of_a_run_that_waits_is_free(fleet: Fleet, start_agent: StartAgent):
    await start_agent(capacity=1)
    waiting = await talk(fleet, ANSWER)
    await waiting.until_waiting()
    other = await talk(fleet, ends(1), repositories=[])
    assert (await other.until_ended())["outcome"] == "answered"
    assert (await fleet.run(waiting.run_id))["state"] == "waiting"


async def test_it_goes_on_at_another_agent_from_the_same_bytes(fleet: Fleet, start_agent: StartAgent):
    first = await start_agent()
    user = await talk(fleet, READ, asks(2), MORE)
    await user.until_waiting()
    await first.stop()
    second = await start_agent()
    await user.answers("f.txt")
    run = await user.until_waiting()
    assert (run["attempt"], run["turns"]) == (2, 3)
    (started,) = [
        event
        for event in await fleet.domain.events(run["job_id"])
        if event.kind == "run.started" and event.attempt == 2
    ]
    assert started.data["agent"] == second.name
    before, after = map(prefix_bytes, fleet.model.requests[-2:])
    assert after.startswith(before)
    assert [orjson.dumps(message) for message in fleet.model.requests[-1]["messages"]] == (
        await fleet.transcript(user.run_id)
    )[:-1]


async def test_it_finds_its_files_as_they_were(fleet: Fleet, start_agent: StartAgent, tmp_path: Path):
    """Whatever has been pushed since; and it knows still what it has read."""
    await start_agent()
    files = tmp_path / "files of two"
    files.mkdir()
    for name in ("f.txt", "g.txt"):
        (files / name).write_text("old\n")
    origin = tmp_path / "two.git"
    commit_all(files, origin, "Begin")
    user = await talk(fleet, READ, ANSWER, whole(call(2, "read_file", path="g.txt")), MORE, repositories=[origin])
    base_sha = (await user.until_waiting())["base_sha"]
    (files / "g.txt").write_text("new\n")
    git(f"--work-tree={files}", "commit", "--quiet", "--all", "--message=Go on", folder=origin)
    await user.answers("And g?")
    assert (await user.until_waiting())["base_sha"] == base_sha
    (result,) = (await user.transcript())[-2]["content"]
    assert "old" in result["content"]
    (checkpoint,) = await fleet.domain.rows("SELECT read_versions FROM checkpoints WHERE run_id = $1", user.run_id)
    assert checkpoint["read_versions"].keys() == {"f.txt", "g.txt"}


async def test_two_messages_at_once_are_one_turn(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    user = await talk(fleet, ANSWER, MORE)
    await user.until_waiting()
    await asyncio.gather(user.says("One."), user.says("Two."))
    await fleet.again(user.run_id)
    await user.until_waiting()
    words = (await user.transcript())[-2]["content"]
    assert sorted(block["text"] for block in words) == ["One.", "Two."]
    assert (await fleet.kinds(user.run_id)).count("run.requeued") == 1
    assert len(fleet.model.requests) == 2


async def test_a_run_of_several_is_named(fleet: Fleet, start_agent: StartAgent, tmp_path: Path):
    await start_agent()
    fleet.model.ever_after = ANSWER
    job_id = await fleet.submit(kind="task", repositories=[fleet.repository, make_repository(tmp_path, "other")])
    one, other = [User(fleet, order.run_id) for order in await fleet.order(job_id)]
    for user in (one, other):
        await user.until_waiting()
    with pytest.raises(NotWaitingError, match="runId"):
        await fleet.domain.say(job_id, "Which of you?")
    stranger = User(fleet, one.run_id)
    with pytest.raises(NotFoundError):
        await fleet.domain.say(job_id, "And you?", runId=job_id)
    await stranger.answers("You.")
    await one.until_waiting()
    assert [(await fleet.run(user.run_id))["attempt"] for user in (one, other)] == [2, 1]
    await fleet.domain.messaging.complete(fleet.domain.client, job_id, CompleteRequest.model_validate({}))
    assert [(await user.until_ended())["outcome"] for user in (one, other)] == ["answered"] * 2


async def test_a_cancel_while_it_waits_ends_it(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    user = await talk(fleet, ANSWER)
    await user.until_waiting()
    await fleet.cancel(user.run_id, tell=True)
    await fleet.domain.cancelling.cancel_idle(await fleet.domain.cancelling.waiting())
    assert (await user.until_ended())["state"] == "cancelled"
    with pytest.raises(NotWaitingError):
        await user.says("Too late.")


async def test_silence_ends_it_with_the_last_words(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    user = await talk(fleet, asks(1, "Why?"), idleLimitSeconds=60)
    await user.until_waiting()
    await fleet.domain.execute("UPDATE runs SET idle_deadline = idle_deadline - interval '61 seconds'")
    assert await fleet.domain.messaging.end_idle() == 1
    run = await fleet.run(user.run_id)
    assert (run["state"], run["outcome"], run["summary"]) == ("completed", "answered", "Why?")
    last = (await fleet.domain.events(run["job_id"]))[-2]
    assert (last.kind, last.data["summary"]) == ("run.finished", "Why?")


async def test_a_task_without_a_repository_waits_too(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    user = await talk(fleet, ANSWER, ends(2), repositories=[])
    await user.answers("Thanks.")
    run = await user.until_ended()
    assert (run["state"], run["summary"], run["attempt"]) == ("completed", "All is said.", 2)


@pytest.mark.parametrize("is_given", [False, True], ids=["queued", "given to an agent"])
async def test_what_was_said_before_it_began_is_heard(fleet: Fleet, start_agent: StartAgent, *, is_given: bool):
    """Nobody holds it yet: the first turn's end is the first that can hear it."""
    await start_agent()
    fleet.model.answer(ANSWER, MORE)
    job_id = await fleet.submit(kind="task")
    given = await fleet.admit() if is_given else []
    await fleet.domain.say(job_id, "And then?")
    (order,) = given or await fleet.admit()
    await fleet.send(order)
    user = User(fleet, order.run_id)
    run = await user.until_waiting()
    assert (run["attempt"], run["summary"]) == (1, "It still does.")
    assert (await user.transcript())[2]["content"] == [said("And then?")]
