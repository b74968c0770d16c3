"""Whole runs that run commands in the real sandbox: when they may, what is kept of it, and what is gone afterwards."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from services.agent.sandbox import Sandbox
from services.contracts.words import EventKind, RunState
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.looking import answers, offered, told, work
from tests.integration.agent.messages_server import Answer, call, refused, said, whole
from tests.integration.agent.sandboxes import Trace, confined

DONE = whole(call(9, "task_complete", summary="Done.", status="done"))
OVERLOADED = refused(529, "Overloaded", kind="overloaded_error")
ANY = {"permissionMode": "bypassPermissions"}


def command(number: int, words: str) -> Answer:
    return whole(call(number, "run_command", command=words))


@pytest.fixture
async def sandbox() -> Sandbox:
    return await confined()


@pytest.mark.parametrize(
    ("fields", "is_offered"),
    [
        ({}, False),
        ({"allowedCommands": ["make *"]}, True),
        (ANY, True),
        ({"permissionMode": "plan", "allowedCommands": ["make *"]}, False),
        ({"kind": "task", **ANY, "allowedCommands": ["make *"]}, False),
    ],
    ids=["nobody allows any", "a list", "all of them", "a plan", "a task"],
)
async def test_when_commands_are_offered(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, fields: dict[str, Any], is_offered: bool
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(command(1, "make all"), DONE)
    run = await work(fleet, **fields)
    assert ("run_command" in offered(fleet.model.requests[0])) is is_offered
    answer = (await answers(fleet, run["id"]))["toolu_1"]
    assert ("There is no tool 'run_command'" in answer["content"]) is not is_offered


async def test_only_commands_of_the_list_are_run(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(command(1, "touch made"), command(2, "cat f.txt"), command(3, "cat f.txt; touch made"), DONE)
    run = await work(fleet, allowedCommands=["cat *"])
    answer = await answers(fleet, run["id"])
    assert "This command is not allowed" in answer["toolu_1"]["content"]
    assert answer["toolu_2"]["content"].startswith("Exit code 0")
    assert "needs a shell" in answer["toolu_3"]["content"]
    assert run["outcome"] == "no_changes"


async def test_what_a_command_made_is_in_the_changeset_and_survives_an_attempt(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(command(1, "mkdir new && echo made > new/made.txt && rm f.txt"), OVERLOADED, OVERLOADED)
    run_id = await fleet.dispatch(**ANY)
    await fleet.until_run(run_id, RunState.QUEUED)
    await fleet.until_released(run_id)
    fleet.model.answer(command(2, "cat new/made.txt; ls f.txt"), DONE)
    await fleet.again(run_id)
    await fleet.until_run(run_id, RunState.PUBLISHING)
    seen = (await answers(fleet, run_id))["toolu_2"]["content"]
    assert "\nmade\n" in seen
    assert "No such file" in seen
    changed = await told(fleet, run_id, EventKind.FILE_CHANGED)
    assert {(each["path"], each["change"]) for each in changed} == {("new/made.txt", "added"), ("f.txt", "deleted")}
    patch = (await fleet.changeset(run_id))["patch"]
    assert b"+made\n" in patch
    assert b"deleted file" in patch


async def test_long_output_can_be_read_also_by_the_next_attempt(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await start_agent(sandbox=sandbox)
    part = {"path": "@outputs/1.txt", "start_line": 10_001, "end_line": 10_002}
    fleet.model.answer(command(1, "seq -f line-%g 1 20000"), whole(call(2, "read_file", **part)))
    fleet.model.answer(OVERLOADED, OVERLOADED, whole(call(3, "read_file", **part)), DONE)
    run_id = await fleet.dispatch(**ANY)
    await fleet.until_run(run_id, RunState.QUEUED)
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.COMPLETED)
    answer = {name: block["content"] for name, block in (await answers(fleet, run_id)).items()}
    assert "@outputs/1.txt" in answer["toolu_1"]
    assert "line-10001" not in answer["toolu_1"]
    assert "line-10001" in answer["toolu_2"]
    assert answer["toolu_3"] == answer["toolu_2"]
    assert run["outcome"] == "no_changes", "outputs are no files of the worktree"


async def test_a_cancel_leaves_no_process(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    trace = Trace()
    fleet.model.answer(command(1, f"{trace.command} & {trace.command}"))
    run_id = await fleet.dispatch(**ANY)
    assert await trace.runs()
    await fleet.cancel(run_id, tell=True)
    await fleet.until_run(run_id, RunState.CANCELLED)
    assert not trace.is_running()
    await fleet.until_released(run_id)


async def test_an_interrupted_command_is_not_run_again(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    trace = Trace()
    run_id = await interrupted(fleet, start_agent, sandbox, trace)
    await start_agent(sandbox=sandbox)
    fleet.model.answer(OVERLOADED, OVERLOADED)
    await fleet.again(run_id)
    await fleet.until_run(run_id, RunState.QUEUED)
    assert not trace.is_running()
    answer = (await answers(fleet, run_id))["toolu_1"]
    assert answer["content"].startswith("Interrupted: ")
    assert answer["is_error"]
    fleet.model.answer(DONE)
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.COMPLETED)
    assert (run["outcome"], run["attempt"]) == ("no_changes", 3), "the worktree is as it was before the command"
    assert fleet.model.requests[-1] == fleet.model.requests[-2], "the repair was stored"


async def interrupted(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, trace: Trace) -> UUID:
    """A run that was handed back while its command was under way, which had written a file."""
    first = await start_agent(sandbox=sandbox)
    fleet.model.answer(command(1, f"touch half-way; {trace.command}"))
    run_id = await fleet.dispatch(**ANY)
    assert await trace.runs()
    await first.drain(0.1)
    await fleet.until_run(run_id, RunState.QUEUED)
    assert await trace.runs(wanted=False)
    return run_id


async def test_a_command_gets_no_secret(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-hidden-1")
    await start_agent(sandbox=sandbox, ANTHROPIC_API_KEY="sk-hidden-2")
    fleet.model.answer(command(1, "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'"), DONE)
    run = await work(fleet, **ANY)
    seen = (await answers(fleet, run["id"]))["toolu_1"]["content"]
    assert "PATH=" in seen
    for secret in ("sk-hidden", "a vcs token", "ANTHROPIC", "DATABASE_URL"):
        assert secret not in seen


async def test_the_model_is_told_where_no_command_can_be_run(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(command(1, "touch made"), whole(said("So be it.")), DONE)
    run = await work(fleet, **ANY)
    answer = (await answers(fleet, run["id"]))["toolu_1"]
    assert answer["is_error"]
    assert answer["content"].startswith("The command was not run. Commands cannot be run here")
    assert run["outcome"] == "no_changes"
