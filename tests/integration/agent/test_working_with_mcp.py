"""Whole runs with the MCP servers of their client: one in the real sandbox, one behind HTTP, and such as fail."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import orjson
import pytest
from yarl import URL

from services.agent.sandbox import Sandbox
from services.contracts.agents import ClientSettings, McpServer, StdioServer
from services.contracts.words import RunState
from services.jobs.client_settings import ClientSetting
from services.runtime.base_urls import BaseUrls
from services.runtime.sealing import Sealer
from tests.integration.agent.agents import LONG_SECONDS, QuietHeartbeat, StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.looking import answers, logged, offered, system, work
from tests.integration.agent.mcp_running import SERVER, http, http_server, stdio
from tests.integration.agent.messages_server import call, hanging, refused, whole
from tests.integration.agent.sandboxes import confined
from tests.integration.agent.talking import ANSWER, MORE, talk

DONE = whole(call(9, "task_complete", summary="Done.", status="done"))
OVERLOADED = refused(529, "Overloaded", kind="overloaded_error")
SECRET_KEY = base64.urlsafe_b64encode(b"k" * 32).decode()
AGENT = {"secret_key": SECRET_KEY, "allow_private_addresses": True}


@pytest.fixture
async def sandbox() -> Sandbox:
    """One that shows commands what the servers of these tests are made of."""
    return await confined(Path(sys.prefix), Path(sys.base_prefix), SERVER.parent)


async def configure(fleet: Fleet, **servers: McpServer) -> None:
    """Let the client of all runs have these servers."""
    settings = ClientSetting(fleet.domain.units, Sealer(SECRET_KEY), BaseUrls())
    await settings.replace(fleet.domain.client, ClientSettings(mcp_servers=servers))


async def test_a_code_run_uses_a_server_in_the_sandbox(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await configure(fleet, local=stdio(TOKEN="tok-secret-1"))
    await start_agent(sandbox=sandbox, **AGENT)
    fleet.model.answer(whole(call(1, "mcp__local__echo", text="hällo"), call(2, "mcp__local__secret")), DONE)
    run = await work(fleet)
    assert (run["state"], run["outcome"]) == ("completed", "no_changes")
    assert {"mcp__local__echo", "edit_file"} <= offered(fleet.model.requests[0])
    answer = await answers(fleet, run["id"])
    assert answer["toolu_1"]["content"] == "hällo"
    assert answer["toolu_2"]["content"].startswith("the token is ")
    assert b"tok-secret-1" not in b"".join(await fleet.transcript(run["id"]))


async def test_a_task_uses_a_server_behind_http(fleet: Fleet, start_agent: StartAgent):
    async with http_server() as url:
        await configure(fleet, remote=http(url))
        await start_agent(**AGENT)
        fleet.model.answer(whole(call(1, "mcp__remote__echo", text="hi")), whole(call(2, "mcp__remote__fail")), DONE)
        run = await work(fleet, kind="task", repositories=[])
    assert (run["state"], run["outcome"]) == ("completed", "answered")
    assert {"mcp__remote__echo", "ask_user"} <= offered(fleet.model.requests[0])
    answer = await answers(fleet, run["id"])
    assert answer["toolu_1"]["content"] == "hi"
    assert answer["toolu_2"]["is_error"]
    assert "it did not work" in answer["toolu_2"]["content"]


async def test_a_plan_uses_none(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await configure(fleet, local=stdio())
    await start_agent(sandbox=sandbox, **AGENT)
    fleet.model.answer(DONE)
    await work(fleet, permissionMode="plan")
    assert not any(name.startswith("mcp__") for name in offered(fleet.model.requests[0]))


async def test_a_run_goes_on_without_a_server_that_does_not_start(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await configure(fleet, broken=StdioServer(type="stdio", command=["/nowhere/to/be/found"]), local=stdio())
    await start_agent(sandbox=sandbox, **AGENT)
    fleet.model.answer(whole(call(1, "mcp__local__echo", text="still here")), DONE)
    run = await work(fleet)
    assert run["outcome"] == "no_changes"
    assert (await answers(fleet, run["id"]))["toolu_1"]["content"] == "still here"
    (line,) = await logged(fleet, run["id"])
    assert line.startswith("MCP server broken ")
    assert line.endswith("The run goes on without its tools.")
    assert line in system(fleet.model.requests[0]), "the model knows of it"


async def test_a_run_goes_on_without_servers_where_there_is_no_sandbox(fleet: Fleet, start_agent: StartAgent):
    await configure(fleet, local=stdio())
    await start_agent(**AGENT)
    fleet.model.answer(DONE)
    run = await work(fleet)
    assert run["outcome"] == "no_changes"
    (line,) = await logged(fleet, run["id"])
    assert "MCP server local" in line


async def test_a_call_that_was_interrupted_is_not_made_again(fleet: Fleet, start_agent: StartAgent):
    async with http_server() as url:
        await configure(fleet, remote=http(url))
        first = await start_agent(**AGENT)
        fleet.model.answer(whole(call(1, "mcp__remote__slow")))
        run_id = await fleet.dispatch()

        async def is_made() -> bool:
            return "tool.started" in await fleet.kinds(run_id)

        await fleet.until(is_made)
        await first.drain(0.1)
        await fleet.until_run(run_id, RunState.QUEUED)
        await start_agent(**AGENT)
        fleet.model.answer(OVERLOADED, OVERLOADED)
        await fleet.again(run_id)
        await fleet.until_run(run_id, RunState.QUEUED)
        answer = (await answers(fleet, run_id))["toolu_1"]
        fleet.model.answer(DONE)
        await fleet.again(run_id)
        await fleet.until_run(run_id, RunState.COMPLETED)
    assert answer["is_error"]
    assert answer["content"].startswith("Interrupted: ")
    assert fleet.model.requests[-1] == fleet.model.requests[-2], "the repair was stored, and the tools are the same"


async def test_a_conversation_outlives_its_server(fleet: Fleet, start_agent: StartAgent):
    """What all requests begin with still offers the tools of a server that is away when the run is woken."""
    again = [whole(call(number, "mcp__remote__echo", text=f"again {number}")) for number in (2, 3, 4)]
    async with http_server() as url:
        await configure(fleet, remote=http(url))
        await start_agent(**AGENT)
        user = await talk(fleet, whole(call(1, "mcp__remote__echo", text="hi")), ANSWER, repositories=[])
        await user.until_waiting()
    fleet.model.answer(*again, MORE)
    await user.answers("once more")
    await user.until_waiting()
    async with http_server(URL(url).port):
        fleet.model.answer(whole(call(5, "mcp__remote__echo", text="back")), MORE)
        await user.answers("and now?")
        await user.until_waiting()
    answer = await answers(fleet, user.run_id)
    for number in (2, 3, 4):
        assert answer[f"toolu_{number}"]["is_error"]
        assert answer[f"toolu_{number}"]["content"].startswith(
            "The MCP server remote is away, and the call was not made"
        )
    assert answer["toolu_5"]["content"] == "back"
    assert len({orjson.dumps([each["tools"], each["system"]]) for each in fleet.model.requests}) == 1
    (line,) = [each for each in await logged(fleet, user.run_id) if each.startswith("MCP server remote ")]
    assert line.endswith("The run goes on; a call of its tools tries to connect with it again.")


async def test_a_server_that_was_taken_out_of_the_settings_is_done_without(fleet: Fleet, start_agent: StartAgent):
    async with http_server() as url:
        await configure(fleet, remote=http(url))
        await start_agent(**AGENT)
        user = await talk(fleet, ANSWER, repositories=[])
        await user.until_waiting()
        await configure(fleet)
        fleet.model.answer(*[whole(call(n, "mcp__remote__echo", text=str(n))) for n in (1, 2, 3)], MORE)
        await user.answers("call it")
        await user.until_waiting()
    assert "cannot be used any more" in (await answers(fleet, user.run_id))["toolu_3"]["content"]


async def test_a_server_that_lives_beside_other_tools_cannot_write_the_worktree(tmp_path: Path, sandbox: Sandbox):
    """Else it could swap folders for links under a search or a checkpoint; see docs/threats.md."""
    (tmp_path / "seen").write_text("a\n")
    script = ["/bin/sh", "-c", "cat seen; touch made 2>/dev/null || echo refused"]
    async with sandbox.open(script, worktree=tmp_path, writes=False) as process:
        assert await process.stdout.readline() == b"a\n"
        assert await process.stdout.readline() == b"refused\n"
    assert not (tmp_path / "made").exists()


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_server_has_no_time_to_end_where_a_write_finds_the_run_lost(
    fleet: Fleet, start_agent: StartAgent, tmp_path: Path
):
    asked = tmp_path / "asked to end"
    script = f"trap 'touch \"{asked}\"; exit' TERM; '{sys.executable}' '{SERVER}' stdio <&0 & wait; wait; sleep 600"
    await configure(fleet, local=StdioServer(type="stdio", command=["/bin/bash", "-c", script]))
    agent = await start_agent(sandbox=await Sandbox.find("none"), heartbeat=QuietHeartbeat, **AGENT)
    fleet.model.answer(hanging(call(1, "mcp__local__echo", text="hi")))
    run_id = await fleet.dispatch()
    await fleet.model.until(fleet.model.waits)
    assert "mcp__local__echo" in offered(fleet.model.requests[0])
    await fleet.lose(run_id)
    fleet.model.go_on.set()
    await agent.drain(LONG_SECONDS)
    assert not asked.exists()
