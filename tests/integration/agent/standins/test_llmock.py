"""Replies of `llmock` that are whole but odd: calls that are broken, stop reasons, and a model that calls any tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from services.runtime.postgres import Record
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.standins.llmock_scripts import (
    ANSWER,
    behavior,
    calls,
    completes,
    ends,
    says,
    start_code,
    writes,
)
from tests.integration.agent.standins.servers import Llmock

CUT_OFF_REPLIES = 3


@pytest.fixture
def model_address(llmock_server: Llmock) -> str:
    return llmock_server.model_address


async def result_of_first_call(fleet: Fleet, run: Record) -> dict[str, Any]:
    result: dict[str, Any] = orjson.loads((await fleet.transcript(run["id"]))[2])["content"][0]
    return result


async def run_code(fleet: Fleet, **options: Any) -> Record:
    return (await ends(fleet, {1: await start_code(fleet, "conversation", **options)}))[1]


async def test_a_model_that_calls_what_fits_and_then_answers(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock
):
    """Nothing is scripted: `--tool-mode auto` alone."""
    await start_agent()
    row = await run_code(fleet)
    assert (row["state"], row["exit_reason"]) == ("completed", None)
    types = [message["content"][0]["type"] for message in map(orjson.loads, await fleet.transcript(row["id"]))]
    assert {"tool_use", "tool_result"} <= set(types)
    requests = await llmock_server.requests()
    assert {request["status"] for request in requests} == {200}
    assert all(request["fault"] is None for request in requests)
    assert await llmock_server.verdict() == []


async def test_a_conversation_without_a_fault(fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock):
    await start_agent()
    await llmock_server.queue(writes(), completes())
    row = await run_code(fleet)
    assert (row["outcome"], row["summary"], row["turns"]) == ("stored", ANSWER, 2)
    assert row["input_tokens"] > 0
    assert row["output_tokens"] > 0
    assert await llmock_server.verdict() == []


@pytest.mark.parametrize(
    ("kind", "words"), [("malformed_arguments", "write_file"), ("unknown_tool", "There is no tool")]
)
async def test_a_broken_call_is_told_to_the_model(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, kind: str, words: str
):
    await start_agent()
    await llmock_server.queue(behavior("tool_fault", kind=kind), writes(times=2), completes())
    row = await run_code(fleet)
    assert (row["outcome"], row["turns"]) == ("stored", 3)
    result = await result_of_first_call(fleet, row)
    assert result["is_error"] is True
    assert words in str(result["content"])
    assert {request["status"] for request in await llmock_server.requests()} == {200}
    assert await llmock_server.verdict() == []


@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
async def test_calls_that_are_always_broken_end_the_run(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, kind: str
):
    await start_agent()
    await llmock_server.queue(behavior("tool_fault", kind=kind, times=None), writes(times=None))
    row = await run_code(fleet)
    assert (row["state"], row["exit_reason"]) == ("failed", "stuck")
    assert "malformed" in row["error"]
    assert row["turns"] == CUT_OFF_REPLIES
    assert await llmock_server.verdict() == []


@dataclass(frozen=True)
class Stop:
    """A first reply that calls `write_file`, with a stop reason of its own; behind it one that completes."""

    reason: str
    ending: tuple[str, str | None, str | None]
    """State, outcome and exit reason."""
    turns: int
    is_written: bool = False


STOPS = [
    Stop("tool_calls", ("completed", "stored", None), turns=2, is_written=True),
    Stop("length", ("completed", "no_changes", None), turns=2),
    Stop("content_filter", ("failed", None, "model_refused"), turns=1),
    Stop("refusal", ("failed", None, "model_refused"), turns=1),
    Stop("model_context_window_exceeded", ("failed", None, "context_exhausted"), turns=1),
    Stop("stop", ("completed", "stored", None), turns=2, is_written=True),
    Stop("stop_sequence", ("completed", "stored", None), turns=2, is_written=True),
    Stop("a_reason_of_tomorrow", ("completed", "stored", None), turns=2, is_written=True),
]


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.reason)
async def test_what_a_stop_reason_makes_of_a_call(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, stop: Stop
):
    await start_agent()
    await llmock_server.queue(writes(finish=stop.reason), completes())
    row = await run_code(fleet)
    assert (row["state"], row["outcome"], row["exit_reason"]) == stop.ending
    assert row["turns"] == stop.turns
    patches = [changeset["patch"] for changeset in await fleet.changesets(row["id"])]
    assert any(b"new.txt" in patch for patch in patches) == stop.is_written
    assert await llmock_server.verdict() == []


async def test_a_pause_is_gone_on_from(fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock):
    await start_agent()
    await llmock_server.queue(says("A moment.", finish_reason="pause_turn"), writes(), completes())
    row = await run_code(fleet)
    assert (row["outcome"], row["turns"]) == ("stored", 3)
    assert await llmock_server.verdict() == []


async def test_replies_that_are_always_cut_off_end_the_run(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock
):
    await start_agent()
    await llmock_server.queue(writes(times=None, finish="length"))
    row = await run_code(fleet)
    assert (row["state"], row["exit_reason"]) == ("failed", "stuck")
    assert "max_tokens" in row["error"]
    assert len(await llmock_server.requests()) == CUT_OFF_REPLIES
    assert await fleet.changesets(row["id"]) == []
    assert await llmock_server.verdict() == []


async def test_a_call_that_repeats_for_ever_ends_the_run(fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock):
    await start_agent()
    await llmock_server.queue(calls("read_file", path="f.txt", times=None))
    row = await run_code(fleet)
    assert (row["state"], row["exit_reason"]) == ("failed", "stuck")
    assert "same call" in row["error"]
    assert await llmock_server.verdict() == []


async def test_an_end_without_a_completion_is_asked_about_once(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock
):
    await start_agent()
    await llmock_server.queue(writes(), says(), says())
    row = await run_code(fleet)
    assert (row["outcome"], row["summary"], row["turns"]) == ("stored", ANSWER, 3)
    assert await llmock_server.verdict() == []
