"""Whole runs whose worktree is too large to be stored for a while, or to the end."""

from __future__ import annotations

import pytest

from services.agent.prompts import prompt
from services.agent.recording import STORED_AGAIN
from services.agent.sandbox import Sandbox
from services.contracts.words import ExitReason, RunState
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.looking import logged, words_to_the_model, work
from tests.integration.agent.messages_server import Answer, call, whole
from tests.integration.agent.sandboxes import confined

ANY = {"permissionMode": "bypassPermissions", "publish": "none"}
REASON = "the changes are more than 0 MiB as a patch; the largest of them: build/ (400,000 bytes in 40 files)"
BUILD = "mkdir build; for n in $(seq 40); do head -c 10000 /dev/urandom > build/$n; done; echo kept > g.txt"


def command(number: int, words: str) -> Answer:
    return whole(call(number, "run_command", command=words))


def done(number: int) -> Answer:
    return whole(call(number, "task_complete", summary="Done.", status="done"))


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setattr("services.vcs.worktrees.snapshots.MAX_PATCH_BYTES", 100_000)
    return await confined()


async def test_what_is_too_large_is_told_and_put_right(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    ignore = whole(call(3, "write_file", path=".gitignore", content="build/\n"))
    fleet.model.answer(command(1, BUILD), done(2), ignore, whole(call(4, "read_file", path="g.txt")), done(5))
    run = await work(fleet, **ANY)
    assert (run["state"], run["outcome"]) == ("completed", "stored")
    said = (await words_to_the_model(fleet, run["id"]))[1:]
    assert said == [prompt("tree_too_large").format(reason=REASON), prompt("not_done_yet"), STORED_AGAIN]
    patch = (await fleet.changeset(run["id"]))["patch"]
    assert b"g.txt" in patch
    assert b"build/1" not in patch
    assert [line for line in await logged(fleet, run["id"]) if "stored" in line] == [
        f"what is changed from here on is not stored: {REASON}",
        "what is changed is stored again",
    ]


@pytest.mark.parametrize("times_done", [1, 2], ids=["before it was stored", "before it is delivered"])
async def test_who_gives_up_on_it_is_blocked_and_nothing_is_delivered(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, times_done: int
):
    await start_agent(sandbox=sandbox)
    needs_it = call(5, "task_complete", summary="It does not work without the build.", status="blocked")
    clean = call(4, "run_command", command="rm -r build")
    fleet.model.answer(command(1, BUILD), *map(done, range(2, 2 + times_done)), whole(clean, needs_it))
    run = await work(fleet, **ANY)
    assert (run["state"], run["exit_reason"]) == ("failed", ExitReason.BLOCKED)
    assert run["error"] == "It does not work without the build."
    assert await fleet.domain.rows("SELECT FROM changesets") == []
    (checkpoint,) = await fleet.domain.rows("SELECT patch, is_behind FROM checkpoints")
    assert (b"g.txt" in checkpoint["patch"], checkpoint["is_behind"]) == (True, False)


async def test_what_stays_too_large_ends_in_clear_words_and_can_be_gone_on_with(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await start_agent(sandbox=sandbox)
    first = whole(call(1, "write_file", path="new.txt", content="stored before\n"))
    fleet.model.answer(first, command(2, BUILD), *map(done, (3, 4, 5, 6)))
    run = await work(fleet, **ANY, maxAttempts=3)
    assert (run["state"], run["exit_reason"], run["attempt"]) == ("failed", ExitReason.STUCK, 1)
    assert run["error"].startswith(f"the change cannot be delivered: {REASON}. ")
    fleet.model.answer(done(7))
    (order,) = await fleet.order(await fleet.domain.retry(run["job_id"], resume=True))
    again = await fleet.until_run(order.run_id, RunState.COMPLETED, RunState.FAILED)
    assert (again["state"], again["outcome"]) == ("completed", "stored")
    said = await words_to_the_model(fleet, again["id"])
    assert said[-2:] == [prompt("tree_put_back"), prompt("go_on")]
    patch = (await fleet.changeset(again["id"]))["patch"]
    assert b"stored before" in patch
    assert b"build" not in patch
