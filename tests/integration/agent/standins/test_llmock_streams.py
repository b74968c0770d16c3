"""Streams that `llmock` breaks or slows, at each of their events: no part of a broken reply is ever used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from services.contracts.words import EventKind
from services.runtime.postgres import Record
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.standins.conftest import PATIENCE
from tests.integration.agent.standins.llmock_scripts import (
    ANSWER,
    attempts,
    behavior,
    completes,
    ends,
    start_code,
    start_task,
    writes,
)
from tests.integration.agent.standins.servers import Llmock

CAPACITY = 40
# message_start, content_block_start, four deltas, content_block_stop, message_delta, message_stop.
EVENTS = 9
LAST = EVENTS - 1
PACED = ("--stream-chunk-delay-ms", "200")
"""Slow enough that the server learns of a client's going before it has sent everything."""


@pytest.fixture
def model_address(llmock_server: Llmock) -> str:
    return llmock_server.model_address


def fault(kind: str, place: int, **fields: Any) -> dict[str, Any]:
    """Before event ``place`` of the first reply of the case of that name; a stall is as long as `llmock`'s own."""
    return behavior("stream_fault", of=place, kind=kind, after_chunks=place, **fields)


async def written(fleet: Fleet, run: Record) -> dict[str, Any]:
    """What came of a run that was to write a file and to complete."""
    patch = (await fleet.changeset(run["id"]))["patch"] if run["outcome"] == "stored" else b""
    told = await fleet.domain.rows("SELECT kind FROM events WHERE run_id = $1", run["id"])
    return {
        "outcome": run["outcome"],
        "error": run["error"],
        "is_written": b"+whole\n" in patch,
        "tools_ended": Counter(row["kind"] for row in told)[EventKind.TOOL_ENDED.value],
        "roles": [orjson.loads(body)["role"] for body in await fleet.transcript(run["id"])],
    }


WRITTEN_ONCE = {
    "outcome": "stored",
    "error": None,
    "is_written": True,
    "tools_ended": 1,
    "roles": ["user", "assistant", "user", "assistant"],
}


async def break_at(
    fleet: Fleet, start_agent: StartAgent, server: Llmock, places: Sequence[int], kind: str
) -> list[dict[str, Any]]:
    """A run for each of ``places``, whose first stream breaks there; returns the requests."""
    await start_agent(capacity=CAPACITY)
    for place in places:
        await server.queue(fault(kind, place), writes(of=place, times=2), completes(of=place))
    ended = await ends(fleet, {place: await start_code(fleet, place) for place in places})
    assert {place: await written(fleet, row) for place, row in ended.items()} == dict.fromkeys(places, WRITTEN_ONCE)
    assert await server.pending() == []
    requests = await server.requests()
    for place in places:
        broken, again, then = attempts(requests, place)
        assert (broken == again, again == then) == (True, False), "the same request again, then the next turn's"
    return requests


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "stall"])
async def test_a_broken_stream_is_asked_for_again(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, kind: str
):
    requests = await break_at(fleet, start_agent, llmock_server, range(EVENTS), kind)
    assert sorted(request["fault"] for request in requests if request["fault"]) == [
        f"stream:{kind}@{place}" for place in range(EVENTS)
    ]
    assert await llmock_server.verdict() == []


@pytest.mark.parametrize("flags", [PACED])
async def test_a_malformed_event_is_not_passed_over(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, flags: Sequence[str]
):
    assert flags == PACED
    await break_at(fleet, start_agent, llmock_server, range(LAST), "malformed")
    assert await llmock_server.verdict() == []


async def test_a_malformed_last_event_is_not_passed_over(fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock):
    await break_at(fleet, start_agent, llmock_server, [LAST], "malformed")
    # The one finding that is meant: with its last event the answer is over, and its judge takes it for a success
    # whatever the client did next. That the same request came again is checked above.
    assert await llmock_server.verdict() == [("warning", "malformed_chunk_ignored")]


# What its judge says of a client that never gets a whole reply. It looks at the last try alone: that there were others
# before, and that the run failed, is checked here.
FOR_EVER = {
    "disconnect": [],
    "stall": [],
    "truncate": [("error", "truncated_stream_accepted")],
    "malformed": [("warning", "malformed_chunk_ignored")],
}


@pytest.mark.parametrize("flags", [PACED])
@pytest.mark.parametrize("kind", FOR_EVER)
async def test_a_stream_that_always_breaks_fails_the_run(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, flags: Sequence[str], kind: str
):
    assert flags == PACED
    await start_agent()
    await llmock_server.queue(fault(kind, 4, times=None), writes(times=None))
    row = (await ends(fleet, {4: await start_code(fleet, 4)}))[4]
    assert (row["state"], row["exit_reason"]) == ("failed", "model_unavailable")
    assert f"(tried {PATIENCE.tries} times)" in row["error"]
    assert [orjson.loads(body)["role"] for body in await fleet.transcript(row["id"])] in ([], ["user"])
    requests = await llmock_server.requests()
    assert len(attempts(requests, 4)) == PATIENCE.tries
    assert len(set(attempts(requests, 4))) == 1
    assert await llmock_server.verdict() == FOR_EVER[kind]


SLOW = {
    "delay": behavior("delay", seconds=0.5),
    "slow first token": behavior("slow_first_token", seconds=0.5),
    "short stall": behavior("stream_fault", kind="stall", after_chunks=3, stall_seconds=0.3),
}


@pytest.mark.parametrize("slowness", SLOW.values(), ids=SLOW.keys())
async def test_a_slow_reply_is_waited_for(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, slowness: dict[str, Any]
):
    await start_agent()
    await llmock_server.queue(slowness, completes())
    row = (await ends(fleet, {1: await start_task(fleet, "slow")}))[1]
    assert (row["outcome"], row["summary"]) == ("answered", ANSWER)
    assert len(await llmock_server.requests()) == 1
    assert await llmock_server.verdict() == []
