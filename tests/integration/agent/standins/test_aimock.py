"""Conversations that `aimock` tells from a script, in streams of any granularity and with its faults in between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.contracts.words import RunState
from services.runtime.postgres import Record
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.standins.conftest import PATIENCE
from tests.integration.agent.standins.servers import Aimock, Json

OPTIONS = {"maxAttempts": 1, "publish": "none", "model": "claude-sonnet-5-5"}
SAID = "Größer: 😀, „ja“ … and a line\nmore."
THOUGHT = "First I look, then I write."
SIGNATURE = "c2lnbmVk"
CALL_IDS = ["toolu_list", "toolu_read", "toolu_search"]


@pytest.fixture
def model_address(aimock_server: Aimock) -> str:
    return aimock_server.address


def call(name: str, id_: str, **input_: object) -> Json:
    return {"type": "toolCall", "id": id_, "name": name, "arguments": input_}


def said(text: str) -> Json:
    return {"type": "text", "text": text}


def turn(number: int, *blocks: Json, match: Json | None = None, **fixture: object) -> Json:
    """What is answered behind ``number`` replies. ``match``: what else the request must be like."""
    return {"match": {"turnIndex": number, **(match or {})}, "response": {"blocks": blocks}, **fixture}


def complete(number: int, **fixture: Any) -> Json:
    return turn(number, call("task_complete", "toolu_done", summary="Done.", status="done"), **fixture)


LOOK = [
    said(SAID),
    call("list_files", "toolu_list", directory="."),
    call("read_file", "toolu_read", path="f.txt"),
    call("search_code", "toolu_search", pattern="a"),
]
WRONG_EDIT = call("edit_file", "toolu_wrong", path="f.txt", old_string="nowhere", new_string="b")
EDIT = call("edit_file", "toolu_edit", path="f.txt", old_string="a", new_string="b 😀")


def conversation(**each: object) -> list[Json]:
    """Three reading tools side by side, an edit that fails, one that does not, the end; a turn's request has to carry
    the results of the one before.
    """
    return [
        turn(0, *LOOK, match={"userMessage": "Change a to b"}, **each),
        turn(1, WRONG_EDIT, match={"toolCallId": "toolu_search", "toolResultContains": "f.txt"}, **each),
        turn(2, EDIT, match={"toolCallId": "toolu_wrong"}, **each),
        complete(3, match={"toolCallId": "toolu_edit", "toolResultContains": "f.txt"}, **each),
    ]


async def run_to_end(fleet: Fleet, **options: object) -> Record:
    run_id = await fleet.dispatch(**{**OPTIONS, **options})
    return await fleet.until_run(run_id, RunState.COMPLETED, RunState.FAILED)


async def messages(fleet: Fleet, run_id: UUID) -> list[Json]:
    return [orjson.loads(body) for body in await fleet.transcript(run_id)]


def sent(journal: Sequence[Json]) -> list[list[Json]]:
    """The messages of each request, without the system's."""
    return [[message for message in entry["body"]["messages"] if message["role"] != "system"] for entry in journal]


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 10_000])
async def test_a_conversation_with_tools_side_by_side_and_an_error(
    fleet: Fleet, start_agent: StartAgent, aimock_server: Aimock, chunk_size: int
):
    await start_agent()
    await aimock_server.add(*conversation(chunkSize=chunk_size))
    run = await run_to_end(fleet)
    assert (run["error"], run["outcome"], run["summary"], run["turns"]) == (None, "stored", "Done.", 4)
    assert "-a\n+b 😀\n".encode() in (await fleet.changeset(run["id"]))["patch"]
    told = await messages(fleet, run["id"])
    assert told[1]["content"][0] == said(SAID)
    assert [block["name"] for block in told[1]["content"][1:]] == ["list_files", "read_file", "search_code"]
    assert [result["tool_use_id"] for result in told[2]["content"]] == CALL_IDS, "one message, in call order"
    assert [result.get("is_error", False) for message in (told[4], told[6]) for result in message["content"]] == [
        True,
        False,
    ]


async def test_a_request_goes_on_from_the_one_before(fleet: Fleet, start_agent: StartAgent, aimock_server: Aimock):
    await start_agent()
    await aimock_server.add(*conversation())
    await run_to_end(fleet)
    journal = await aimock_server.journal()
    assert [entry["response"]["status"] for entry in journal] == [200] * 4
    requests = sent(journal)
    assert [len(request) for request in requests] == [1, 5, 7, 9], "a tool's result is a message of its own there"
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(requests))
    heads = [(entry["body"]["tools"], entry["body"]["max_tokens"], entry["body"]["model"]) for entry in journal]
    assert all(head == heads[0] for head in heads)


async def test_thinking_is_kept_with_its_signature(fleet: Fleet, start_agent: StartAgent, aimock_server: Aimock):
    await start_agent()
    thinking = {"reasoning": THOUGHT, "reasoningSignature": SIGNATURE, "redactedThinking": ["b3BhcXVl"]}
    first = turn(0, EDIT, chunkSize=3)
    first["response"] |= thinking
    await aimock_server.add(turn(0, EDIT) | first, complete(1))
    run = await run_to_end(fleet)
    content = (await messages(fleet, run["id"]))[1]["content"]
    assert content[:2] == [
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
        {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
    ]
    assert [block["type"] for block in content[2:]] == ["tool_use"]
    assert run["turns"] == 2


FAULTS: dict[str, Json] = {
    "500": {"chaos": {"dropRate": 1}},
    "429": {"chaos": {"rateLimitRate": 1}},
    "no JSON and no stream": {"chaos": {"malformedRate": 1}},
    "cut before anything": {"chaos": {"disconnectRate": 1}},
    "cut behind the first event": {"truncateAfterChunks": 1},
    "cut within a call's input": {"truncateAfterChunks": 5, "chunkSize": 5},
    "cut before the last event": {"truncateAfterChunks": 5},
    "cut after a while": {"disconnectAfterMs": 100, "latency": 40, "chunkSize": 5},
}
ERRORS: dict[str, Json] = {
    "overloaded": {"status": 529, "error": {"type": "overloaded_error", "message": "Overloaded"}},
    "rate limit": {"status": 429, "retryAfter": 2, "error": {"type": "rate_limit_error", "message": "Slow down"}},
    "gateway": {"status": 502, "error": {"type": "api_error", "message": "Bad gateway"}},
    "timeout": {"status": 408, "error": {"type": "timeout_error", "message": "Too slow"}},
}


def broken_once(number: int, *blocks: Json, fault: Json) -> list[Json]:
    """The turn as it is answered first, and then."""
    return [
        turn(number, *blocks, match={"sequenceIndex": 0}) | fault,
        turn(number, *blocks, match={"sequenceIndex": 1}),
    ]


@pytest.mark.parametrize(
    "fault", [*FAULTS.values(), *({"response": error} for error in ERRORS.values())], ids=[*FAULTS, *ERRORS]
)
async def test_a_fault_in_the_middle_of_a_conversation_costs_one_more_request(
    fleet: Fleet, start_agent: StartAgent, aimock_server: Aimock, fault: Json
):
    await start_agent()
    await aimock_server.add(turn(0, *LOOK), *broken_once(1, EDIT, fault=fault), complete(2))
    run = await run_to_end(fleet)
    assert (run["error"], run["outcome"], run["turns"]) == (None, "stored", 3)
    assert "-a\n+b 😀\n".encode() in (await fleet.changeset(run["id"]))["patch"]
    first, broken, again, then = sent(await aimock_server.journal())
    assert (len(first), len(broken), len(then)) == (1, 5, 7)
    assert broken == again, "the same request again"


async def test_chaos_without_an_end_fails_the_run(fleet: Fleet, start_agent: StartAgent, aimock_server: Aimock):
    await start_agent()
    await aimock_server.call("POST", "/__aimock/chaos", {"dropRate": 1})
    run = await run_to_end(fleet)
    assert run["exit_reason"] == "model_unavailable"
    assert run["error"] == f"the model service answered 500: Chaos: request dropped (tried {PATIENCE.tries} times)"
    assert len(await aimock_server.journal()) == PATIENCE.tries


async def test_a_request_that_nothing_fits_fails_at_once(fleet: Fleet, start_agent: StartAgent, aimock_server: Aimock):
    await start_agent()
    await aimock_server.add(turn(0, said("Never."), match={"userMessage": "what nobody asks"}))
    run = await run_to_end(fleet)
    assert run["exit_reason"] == "model_rejected"
    assert run["error"] == "the model service answered 404: No fixture matched"
    assert len(await aimock_server.journal()) == 1


async def test_a_slow_stream_is_waited_for(fleet: Fleet, start_agent: StartAgent, aimock_server: Aimock):
    await start_agent()
    await aimock_server.call("POST", "/__aimock/chaos", {"latencyMs": 200})
    await aimock_server.add(complete(0, chunkSize=10, streamingProfile={"ttft": 300, "tps": 20, "jitter": 0.2}))
    run = await run_to_end(fleet)
    assert (run["outcome"], run["turns"]) == ("no_changes", 1)
    assert len(await aimock_server.journal()) == 1
