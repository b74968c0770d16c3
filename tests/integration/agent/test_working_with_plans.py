"""Whole runs that only plan: they read, say what they would do, and change nothing."""

from __future__ import annotations

from typing import Any

import pytest

from services.agent.sandbox import Sandbox
from services.contracts.agents import ClientSettings
from services.contracts.words import EventKind
from services.jobs.client_settings import ClientSetting
from services.runtime.base_urls import BaseUrls
from services.runtime.sealing import Sealer
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.looking import answers, offered, system, told, work
from tests.integration.agent.messages_server import Answer, call, said, whole

READING = {"list_files", "read_file", "search_code", "task_complete"}
READ = whole(call(1, "read_file", path="f.txt"))
PLAN = "1. Change a to b in f.txt."
DONE = whole(call(9, "task_complete", summary=PLAN, status="done"))


@pytest.mark.parametrize("ending", [DONE, whole(said(PLAN), stop="end_turn")], ids=["by its tool", "in words"])
async def test_a_plan_is_the_answer(fleet: Fleet, start_agent: StartAgent, ending: Answer):
    await start_agent()
    fleet.model.answer(READ, ending)
    run = await work(fleet, permissionMode="plan")
    assert (run["state"], run["outcome"], run["summary"], run["turns"]) == ("completed", "answered", PLAN, 2)
    assert await fleet.changesets(run["id"]) == []
    assert offered(fleet.model.requests[0]) == READING
    assert "planning agent" in system(fleet.model.requests[0])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("write_file", {"path": "f.txt", "content": "b\n"}),
        ("edit_file", {"path": "f.txt", "old_string": "a", "new_string": "b"}),
        ("delete_file", {"path": "f.txt"}),
        ("run_command", {"command": "rm f.txt"}),
        ("ask_user", {"question": "May I?"}),
    ],
)
async def test_what_a_plan_has_no_tool_for_does_not_happen(
    fleet: Fleet, start_agent: StartAgent, name: str, arguments: dict[str, Any]
):
    await start_agent(sandbox=await Sandbox.find("none"))
    fleet.model.answer(READ, whole(call(2, name, **arguments)), whole(call(3, "read_file", path="f.txt")), DONE)
    run = await work(fleet, permissionMode="plan", testCommand="false")
    answer = await answers(fleet, run["id"])
    assert f"There is no tool {name!r}" in answer["toolu_2"]["content"]
    assert answer["toolu_3"]["content"] == answer["toolu_1"]["content"]
    assert run["outcome"] == "answered"
    assert await told(fleet, run["id"], EventKind.TESTS_STARTED) == []


async def test_a_client_s_runs_plan_unless_their_job_says_otherwise(fleet: Fleet, start_agent: StartAgent):
    settings = ClientSetting(fleet.domain.units, Sealer(None), BaseUrls())
    await settings.replace(fleet.domain.client, ClientSettings.model_validate({"permissionMode": "plan"}))
    await start_agent()
    fleet.model.answer(DONE, DONE)
    await work(fleet)
    await work(fleet, permissionMode="acceptEdits")
    planned, worked = fleet.model.requests
    assert offered(planned) == READING
    assert offered(worked) > READING
