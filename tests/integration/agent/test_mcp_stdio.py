"""MCP servers over stdio, as real processes: what they list, answer, and get wrong."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import pytest

from services.agent.mcp import connected
from services.agent.sandbox import SandboxUnavailableError
from services.agent.tools import Toolbox, ToolCall, Workspace
from services.agent.tools.calls import MalformedInputError, ToolError, ToolSpec
from services.agent.tools.showing import MAX_OUTPUT_CHARACTERS
from services.contracts.agents import StdioServer
from tests.integration.agent.mcp_running import (
    DEADLINE_SECONDS,
    SERVER,
    Pipes,
    PlainSandbox,
    connecting,
    stdio,
    tool,
    use,
)


async def test_what_a_server_lists_is_offered_sorted_under_its_prefix(tmp_path: Path) -> None:
    sandbox = PlainSandbox()
    async with connecting(tmp_path, sandbox=sandbox, s=stdio(TOKEN="a-long-secret"), other=stdio()) as tools:
        names = [each.spec.name for each in tools.tools]
        assert names == sorted(names)
        assert {"mcp__s__echo", "mcp__other__echo"} <= set(names)
        assert tools.problems == ()
        echo, look = tool(tools, "mcp__s__echo").spec, tool(tools, "mcp__s__look").spec
        assert (echo.description, echo.writes, echo.outside) == ("Says it again.", True, True)
        assert echo.input_schema["required"] == ["text"]
        assert (look.writes, look.outside) == (False, True)
        assert len(sandbox.running) == 2
    assert sandbox.running == set()
    assert not any(entry["writes"] for entry in sandbox.opened)
    opened = [entry["environment"] for entry in sandbox.opened]
    assert sorted(opened, key=len) == [{}, {"TOKEN": "a-long-secret"}]
    assert {(entry["worktree"], entry["network"]) for entry in sandbox.opened} == {(tmp_path, False)}


async def test_calls_answer_with_text(tmp_path: Path) -> None:
    async with connecting(tmp_path, s=stdio()) as tools:
        assert (await use(tools, "echo", text="hällo\n\x1b[31m")).content == "hällo\n\x1b[31m"
        assert (await use(tools, "mixed")).content == (
            "seen:\n[image of type image/png, 12 bytes: cannot be shown here]\n"
            "[link to the resource file:///a.txt (a.txt)]\n[resource memo://1]\nremember"
        )
        assert (await use(tools, "structured")).content == '{\n "answer": 42\n}'


async def test_a_long_answer_is_kept_to_be_read_as_that_of_a_command_is(tmp_path: Path) -> None:
    async with connecting(tmp_path, s=stdio()) as tools:
        toolbox = Toolbox(Workspace(tmp_path), kind="task", extra=tools.tools)
        (long,) = await toolbox.run([ToolCall("1", "mcp__s__long", {})])
        read = {"path": "@outputs/1.txt", "start_line": 45, "end_line": 55}
        (part,) = await toolbox.run([ToolCall("2", "read_file", read)])
    assert long.content.startswith("start ")
    assert " end\n[The output was too long to show: read it with read_file, path @outputs/1.txt" in long.content
    assert len(long.content) < MAX_OUTPUT_CHARACTERS + 300
    assert " needle " not in long.content
    assert " needle " in part.content, "one line of 200,000 characters is kept as many"
    assert list(toolbox.outputs.take_new()) == ["1.txt"], "stored with the checkpoint"


async def test_a_tool_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    async with connecting(tmp_path, s=stdio()) as tools:
        with pytest.raises(ToolError, match=r"it did not work: \x1b\[31mred"):
            await use(tools, "fail")
        with pytest.raises(ToolError, match="The MCP server s answered with an error"):
            await use(tools, "refuse")
        with pytest.raises(MalformedInputError, match="lone surrogate"):
            await use(tools, "echo", text="\ud800")
        with pytest.raises(MalformedInputError, match="JSON object"):
            await tool(tools, "mcp__s__echo").run('{"text": ')
        assert (await use(tools, "echo", text="still here")).content == "still here"


async def test_no_secret_of_the_settings_comes_back(tmp_path: Path) -> None:
    async with connecting(tmp_path, s=stdio(TOKEN="tok-123456789")) as tools:
        assert (await use(tools, "secret")).content == "the token is [hidden]"
        with pytest.raises(ToolError) as caught:
            await use(tools, "refuse")
        assert "tok-123456789" not in str(caught.value)


async def test_the_schema_that_a_server_gives_for_its_answers_is_not_worked_on(tmp_path: Path) -> None:
    """Held against its pattern, the answer would stop the event loop for longer than anyone waits."""
    async with connecting(tmp_path, s=stdio()) as tools:
        assert "aaaa" in (await use(tools, "pattern")).content


async def test_a_server_that_dies_in_a_call_is_started_again_twice_and_no_more(tmp_path: Path) -> None:
    sandbox = PlainSandbox()
    async with connecting(tmp_path, sandbox=sandbox, s=stdio()) as tools:
        for _ in range(3):
            assert (await use(tools, "echo", text="hello")).content == "hello"
            with pytest.raises(ToolError, match=r"ended without an answer.*Whether the call did anything is not known"):
                await use(tools, "crash")
        with pytest.raises(ToolError, match="failed too often and is not started again"):
            await use(tools, "echo", text="hello")
        assert len(sandbox.opened) == 3
        assert sandbox.running == set()


async def test_a_server_that_died_between_calls_is_started_before_the_next(tmp_path: Path) -> None:
    async with connecting(tmp_path, s=stdio()) as tools:
        first = (await use(tools, "pid")).content
        with pytest.raises(ToolError, match="ended without an answer"):
            await use(tools, "crash")
        assert (await use(tools, "pid")).content != first


async def test_a_server_that_hangs_is_stopped_and_started_again(tmp_path: Path) -> None:
    sandbox = PlainSandbox()
    async with connecting(tmp_path, sandbox=sandbox, call_seconds=3, s=stdio()) as tools:
        with pytest.raises(ToolError, match="gave no answer within 3 s"):
            await use(tools, "hang")
        assert sandbox.running == set()
        assert (await use(tools, "structured")).content


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flood", "sent megabytes that nobody had asked for"),
        ("chatter", "sent megabytes that nobody had asked for"),
        ("giant", "sent a message of more than 4 MB"),
        ("pester", "asked for more than could be answered"),
    ],
)
async def test_a_server_that_floods_is_stopped(tmp_path: Path, name: str, words: str) -> None:
    sandbox = PlainSandbox()
    async with connecting(tmp_path, sandbox=sandbox, s=stdio()) as tools:
        with pytest.raises(ToolError, match=words):
            await use(tools, name)
        assert sandbox.running == set()
        assert (await use(tools, "echo", text="again")).content == "again"


async def test_a_call_that_is_broken_off_ends_at_once_and_the_server_goes_on(tmp_path: Path) -> None:
    async with connecting(tmp_path, s=stdio()) as tools:
        pid = (await use(tools, "pid")).content
        call = asyncio.create_task(use(tools, "slow"))
        assert (await use(tools, "echo", text="meanwhile")).content == "meanwhile"
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await use(tools, "pid")).content == pid


async def test_a_call_to_a_server_that_reads_nothing_can_be_broken_off(tmp_path: Path) -> None:
    sandbox = PlainSandbox()
    async with asyncio.timeout(DEADLINE_SECONDS), connecting(tmp_path, sandbox=sandbox, s=stdio()) as tools:
        hung = asyncio.create_task(use(tools, "hang"))
        stuck = [asyncio.create_task(use(tools, "echo", text="x" * 1_000_000)) for _ in range(3)]
        await asyncio.wait({hung, *stuck}, timeout=0.5)
        for call in (hung, *stuck):
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call
            assert call.cancelled()
    assert sandbox.running == set()


async def test_tools_stay_as_they_were_listed_when_the_server_changes_them(tmp_path: Path) -> None:
    async with connecting(tmp_path, s=stdio()) as tools:
        await use(tools, "vanish")
        with pytest.raises(ToolError, match="no such tool any more"):
            await use(tools, "look")


async def test_hostile_tools_are_left_out_or_told_of_safely(tmp_path: Path) -> None:
    async with connecting(tmp_path, s=stdio(HOSTILE="1")) as tools:
        names = [each.spec.name for each in tools.tools]
        assert len(names) == len(set(names)) == 128
        assert all(name.isascii() and name.replace("-", "_").isidentifier() and len(name) <= 64 for name in names)
        assert "mcp__s__files_read" in names
        (described,) = [each.spec.description for each in tools.tools if each.spec.description.startswith("\\x1b[2J")]
        assert len(described) == 4_000
        problems = "\n".join(tools.problems)
        assert "`huge` is left out: its schema has 70," in problems
        assert "`either` is left out: its schema has `oneOf` on its top level" in problems
        assert "lists `twice` more than once" in problems
        assert "of its tools are left out: a run has at most 128" in problems
        assert "\x1b" not in problems


async def test_a_run_goes_on_without_servers_that_cannot_be_started(tmp_path: Path) -> None:
    sandbox = PlainSandbox()
    async with connecting(
        tmp_path,
        sandbox=sandbox,
        opening_seconds=8,
        s=stdio(),
        absent=StdioServer(type="stdio", command=["/nowhere/to/be/found"]),
        short=StdioServer(type="stdio", command=["/bin/true"]),
        silent=StdioServer(type="stdio", command=["/bin/sleep", "3600"]),
    ) as tools:
        assert len(sandbox.running) == 1
        absent, short, silent = sorted(tools.problems)
        assert absent == (
            "MCP server absent could not be started: check its command in the client's settings. "
            "The run goes on without its tools."
        )
        assert short.startswith("MCP server short ended before it was ready")
        assert silent.startswith("MCP server silent was not ready within 8 s")
        assert (await use(tools, "echo", text="hello")).content == "hello"


async def test_a_server_that_is_away_at_first_is_started_when_its_tool_is_called(tmp_path: Path) -> None:
    """As after a break: the tools are offered since the run began, and the server comes back under it."""
    command = tmp_path / "server"
    server = StdioServer(type="stdio", command=[str(command), str(SERVER), "stdio"])
    sandbox = PlainSandbox()
    async with connecting(tmp_path, s=stdio()) as tools:
        offered = [each.spec for each in tools.tools]
    async with connecting(tmp_path, sandbox=sandbox, expected=offered, s=server) as tools:
        assert [each.spec.name for each in tools.tools] == [spec.name for spec in offered]
        (problem,) = tools.problems
        assert problem == (
            "MCP server s could not be started: check its command in the client's settings. "
            "The run goes on; a call of its tools tries to connect with it again."
        )
        with pytest.raises(ToolError, match="The MCP server s is away, and the call was not made: it could not be"):
            await use(tools, "echo", text="hello")
        command.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        command.chmod(0o755)
        assert (await use(tools, "echo", text="hello")).content == "hello"
        assert (await use(tools, "pid")).content == (await use(tools, "pid")).content, "one session serves them all"
    assert sandbox.running == set()


async def test_a_server_that_stays_away_is_not_tried_for_ever(tmp_path: Path) -> None:
    sandbox = PlainSandbox()
    async with connecting(tmp_path, s=stdio()) as tools:
        offered = [each.spec for each in tools.tools]
    gone = StdioServer(type="stdio", command=["/nowhere/to/be/found"])
    async with connecting(tmp_path, sandbox=sandbox, expected=offered, s=gone) as tools:
        for words in ("could not be started", "could not be started", "failed too often and is not started again"):
            with pytest.raises(ToolError, match=f"The MCP server s is away.*{words}"):
                await use(tools, "echo", text="hello")
    assert len(sandbox.opened) == 3


async def test_a_tool_that_a_server_has_no_more_is_an_error_that_says_so(tmp_path: Path) -> None:
    expected = ToolSpec("mcp__s__gone", "", {"type": "object"}, writes=False)
    async with connecting(tmp_path, expected=[expected], s=stdio()) as tools:
        assert tools.problems == ("MCP server s: 1 of its tools are not there any more that the run began with.",)
        (spec,) = [each.spec for each in tools.tools if each.spec.name == "mcp__s__gone"]
        assert (spec.writes, spec.outside, spec.resident) == (True, True, True), "a break may have come upon it"
        with pytest.raises(ToolError, match="The MCP server s has no such tool any more"):
            await use(tools, "gone")


async def test_leaving_while_a_server_is_being_started_stops_it(tmp_path: Path) -> None:
    sandbox = PlainSandbox()

    async def run() -> None:
        async with connecting(tmp_path, sandbox=sandbox, s=StdioServer(type="stdio", command=["/bin/sleep", "3600"])):
            pytest.fail("nothing listed any tools")

    task = asyncio.create_task(run())
    await asyncio.wait_for(sandbox.started.wait(), DEADLINE_SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.running == set()


class NoSandbox:
    def open(self, argv: Sequence[str], **settings: object) -> AbstractAsyncContextManager[Pipes]:
        raise SandboxUnavailableError("there is no sandbox here: set SANDBOX=none")


async def test_where_there_is_no_sandbox_the_run_is_told_what_to_do(tmp_path: Path) -> None:
    async with connected(
        {"s": stdio()}, sandbox=NoSandbox(), worktree=tmp_path, limits=None, allow_private_addresses=False
    ) as tools:
        (problem,) = tools.problems
        assert problem.startswith("MCP server s could not be started: there is no sandbox here: set SANDBOX=none.")
        assert tools.tools == ()
