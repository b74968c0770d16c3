"""The offline model's real process, driven by the real SDK: whole conversations, equal bytes, errors, signals."""

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from anthropic import (
    AsyncAnthropic,
    BadRequestError,
    NotFoundError,
)
from anthropic.types import Message, MessageParam, ToolParam, ToolResultBlockParam, ToolUseBlock

START_SECONDS = 15
STOP_SECONDS = 1
MODEL = "claude-opus-5-5"
PROMPT = "You work in the repository demo.\n\nReplace all occurrences of 'old name' with \"new \\\\ 'name' é\" in *.py."


def _tool(name: str, **properties: str) -> ToolParam:
    fields = {field: {"type": kind} for field, kind in properties.items()}
    return {"name": name, "input_schema": {"type": "object", "properties": fields}}


TOOLS = [
    _tool("search_code", pattern="string", glob="string", max_results="integer"),
    _tool("read_file", path="string"),
    _tool("edit_file", path="string", old_string="string", new_string="string", replace_all="boolean"),
    _tool("task_complete", summary="string", status="string"),
]


class Started:
    """A process of the offline model and its address."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process = process
        self.address = address

    @classmethod
    async def start(cls, *options: str) -> "Started":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "quarterdeck.offline_model", *options), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        return cls(process, json.loads(line)["address"])

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
        await asyncio.wait_for(self.process.wait(), START_SECONDS)

    async def stats(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.address}/_offline/stats") as response:
            stats: dict[str, Any] = await response.json()
            return stats


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[Started]:
    started = await Started.start()
    yield started
    await started.stop()


@pytest.fixture
async def claude(model: Started) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key="any", base_url=model.address, max_retries=0, timeout=10) as client:
        yield client


def _run_tool(root: Path, call: ToolUseBlock) -> str:
    arguments: dict[str, Any] = dict(call.input)
    if call.name == "search_code":
        return "\n".join(
            f"{path.relative_to(root)}:{number}:{line}"
            for path in sorted(root.rglob(arguments.get("glob", "*")))
            for number, line in enumerate(path.read_text().splitlines(), 1)
            if re.search(str(arguments["pattern"]), line)
        )
    if call.name == "task_complete":
        return "noted"
    path = root / str(arguments["path"])
    if call.name == "edit_file":
        path.write_text(path.read_text().replace(arguments["old_string"], arguments["new_string"]))
        return "edited"
    return path.read_text()


async def _reply(claude: AsyncAnthropic, messages: list[MessageParam], *, stream: bool) -> Message:
    if not stream:
        return await claude.messages.create(model=MODEL, max_tokens=4_096, messages=messages, tools=TOOLS)
    async with claude.messages.stream(
        model=MODEL, max_tokens=4_096, messages=messages, tools=TOOLS, cache_control={"type": "ephemeral"}
    ) as events:
        return await events.get_final_message()


async def _converse(claude: AsyncAnthropic, root: Path, *, stream: bool) -> list[Message]:
    """Run the tools that are asked for until there are none."""
    messages: list[MessageParam] = [{"role": "user", "content": PROMPT}]
    replies: list[Message] = []
    while not replies or replies[-1].stop_reason == "tool_use":
        assert len(replies) < 20
        replies.append(await _reply(claude, messages, stream=stream))
        messages.append(replies[-1].to_param())
        results: list[ToolResultBlockParam] = [
            {"type": "tool_result", "tool_use_id": block.id, "content": _run_tool(root, block)}
            for block in replies[-1].content
            if isinstance(block, ToolUseBlock)
        ]
        messages.append({"role": "user", "content": results})
    return replies


@pytest.mark.parametrize("stream", [True, False])
async def test_a_whole_conversation_changes_exactly_what_was_asked(
    claude: AsyncAnthropic, tmp_path: Path, stream: bool
) -> None:
    (tmp_path / "dir").mkdir()
    for name in ("a.py", "dir/b c.py", "other.md"):
        (tmp_path / name).write_text("an old name\n\tand an old name.\n")
    (tmp_path / "untouched.py").write_text("nothing\n")

    replies = await _converse(claude, tmp_path, stream=stream)

    changed = "an new \\\\ 'name' é\n\tand an new \\\\ 'name' é.\n"
    assert (tmp_path / "a.py").read_text() == (tmp_path / "dir/b c.py").read_text() == changed
    assert (tmp_path / "other.md").read_text() == "an old name\n\tand an old name.\n"
    assert (tmp_path / "untouched.py").read_text() == "nothing\n"
    assert {reply.model for reply in replies} == {"quarterdeck-offline"}
    for reply in replies:
        assert reply.content[0].type == "text"
        assert reply.content[0].text.startswith("[offline model]")
        assert reply.usage.output_tokens > 1
    (complete,) = (block for block in replies[-2].content if isinstance(block, ToolUseBlock))
    assert complete.input["status"] == "done"
    assert "4 occurrences in 2 files" in str(complete.input["summary"])
    assert replies[-1].stop_reason == "end_turn"


async def _post(model: Started, path: str, body: Any, **headers: str) -> tuple[int, bytes, str]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
        session.post(model.address + path, json=body, headers=headers) as response,
    ):
        return response.status, await response.read(), response.headers["request-id"]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_request_gets_the_same_bytes_and_is_counted_twice(model: Started, stream: bool) -> None:
    body = {
        "model": MODEL,
        "max_tokens": 500,
        "stream": stream,
        "messages": [{"role": "user", "content": PROMPT}],
        "tools": TOOLS,
    }
    before = await model.stats()

    first = await _post(model, "/v1/messages", body, authorization="Bearer any")
    again = await _post(model, "/v1/messages", body, authorization="Bearer any")

    after = await model.stats()
    assert first == again
    assert first[0] == 200
    assert after["served"] == before["served"] + 2
    assert after["bodies_sha256"][-1] == after["bodies_sha256"][-2]


async def test_models_token_counts_and_health(model: Started, claude: AsyncAnthropic) -> None:
    models = [each async for each in claude.models.list()]
    short = await claude.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "hi"}])
    long = await claude.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "hi" * 400}])

    assert [each.id for each in models] == ["quarterdeck-offline"]
    assert short.input_tokens + 190 < long.input_tokens < short.input_tokens + 210
    async with aiohttp.ClientSession() as session, session.get(f"{model.address}/health") as response:
        assert response.status == 200


async def test_errors_are_the_sdks_own(model: Started, claude: AsyncAnthropic) -> None:
    answer: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}],
    }

    with pytest.raises(BadRequestError, match="unexpected tool_use_id 'toolu_1'") as refused:
        await claude.messages.create(model=MODEL, max_tokens=10, messages=[answer], stream=True)
    with pytest.raises(BadRequestError, match="messages: List should have at least 1 item"):
        await claude.messages.create(model=MODEL, max_tokens=10, messages=[])
    with pytest.raises(NotFoundError, match="no such path"):
        await claude.models.retrieve("claude-opus-5-5")

    assert refused.value.type == "invalid_request_error"
    assert str(refused.value.request_id).startswith("req_")


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}])
async def test_a_request_without_a_key_is_refused(model: Started, headers: dict[str, str]) -> None:
    status, body, request_id = await _post(model, "/v1/messages", {}, **headers)

    assert status == 401
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "x-api-key header is required"},
        "request_id": request_id,
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_at_once_also_in_the_middle_of_a_stream(number: signal.Signals) -> None:
    started = await Started.start("--delta-delay-ms", "5000")
    body = {"model": MODEL, "max_tokens": 500, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    try:
        async with (
            aiohttp.ClientSession(headers={"x-api-key": "any"}) as session,
            session.post(f"{started.address}/v1/messages", json=body) as response,
        ):
            assert b"message_start" in await asyncio.wait_for(response.content.readline(), START_SECONDS)
            began = time.monotonic()
            await started.stop(number)
            took_seconds = time.monotonic() - began
        assert took_seconds < STOP_SECONDS
        assert started.process.returncode == 0
    finally:
        await started.stop()


async def test_a_wrong_option_is_named_with_its_variable() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quarterdeck.offline_model"),
        env={"QUARTERDECK_OFFLINE_PORT": "http"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await asyncio.wait_for(process.communicate(), START_SECONDS)

    assert process.returncode == 2
    assert "--port: must be a whole number from 0 to 65535, not 'http' (see also QUARTERDECK_OFFLINE_PORT)" in (
        stderr.decode()
    )
