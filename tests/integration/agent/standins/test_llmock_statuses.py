"""What `llmock` answers instead of a reply: statuses with and without `retry-after`, and real quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from services.contracts.words import RunState
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.standins.conftest import PATIENCE
from tests.integration.agent.standins.llmock_scripts import (
    ANSWER,
    attempts,
    behavior,
    completes,
    ends,
    model_of,
    start_task,
)
from tests.integration.agent.standins.servers import Llmock

BROKEN = (408, 409, 500, 501, 502, 503, 504, 520, 599)
# Too many requests slow the whole fleet down: each of the two is tried by itself, on one run.
GROUPS = [pytest.param(BROKEN, id="broken"), pytest.param((429,), id="429"), pytest.param((529,), id="529")]
LASTING = (400, 401, 402, 403, 404, 405, 413, 418, 422, 451)
CAPACITY = 40
KEY = {"authorization": "Bearer a key"}
"""As the SDK sends the key of the agents here."""
ANSWERED = ("completed", "answered", ANSWER)


@pytest.fixture
def model_address(llmock_server: Llmock) -> str:
    return llmock_server.model_address


async def answers(fleet: Fleet, runs: dict[Any, UUID]) -> dict[Any, tuple[str, str | None, str | None]]:
    return {case: (row["state"], row["outcome"], row["summary"]) for case, row in (await ends(fleet, runs)).items()}


@pytest.mark.parametrize("statuses", GROUPS)
@pytest.mark.parametrize(
    ("times", "retry_after"),
    [
        *[(1, None), (1, 0), (1, 0.4)],
        # Each wait is longer than the one before.
        *[pytest.param(3, after, marks=pytest.mark.slow) for after in (None, 1)],
    ],
)
async def test_what_passes_is_asked_again(
    fleet: Fleet,
    start_agent: StartAgent,
    llmock_server: Llmock,
    statuses: Sequence[int],
    times: int,
    retry_after: float | None,
):
    await start_agent(capacity=CAPACITY)
    asked = {} if retry_after is None else {"retry_after": retry_after}
    faults = [behavior("fail", of=status, times=times, status=status, **asked) for status in statuses]
    await llmock_server.queue(*faults, completes(times=None))
    ended = await answers(fleet, {status: await start_task(fleet, status) for status in statuses})
    assert ended == dict.fromkeys(statuses, ANSWERED)
    requests = await llmock_server.requests()
    tries = {status: attempts(requests, status) for status in statuses}
    assert {status: len(made) for status, made in tries.items()} == dict.fromkeys(statuses, times + 1)
    assert all(len(set(made)) == 1 for made in tries.values()), "the same request each time"
    assert await llmock_server.verdict() == []


@pytest.mark.parametrize("statuses", GROUPS)
async def test_what_does_not_pass_fails_in_the_service_s_words(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, statuses: Sequence[int]
):
    await start_agent(capacity=CAPACITY)
    await llmock_server.queue(*[behavior("fail", of=status, times=None, status=status) for status in statuses])
    ended = await ends(fleet, {status: await start_task(fleet, status) for status in statuses})
    assert {row["exit_reason"] for row in ended.values()} == {"model_unavailable"}
    for status, row in ended.items():
        assert f"the model service answered {status}: " in row["error"]
        assert f"(tried {PATIENCE.tries} times)" in row["error"]
    assert Counter(request["status"] for request in await llmock_server.requests()) == dict.fromkeys(
        statuses, PATIENCE.tries
    )
    assert await llmock_server.verdict() == []


async def test_what_no_waiting_cures_is_asked_once(fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock):
    await start_agent(capacity=CAPACITY)
    faults = [
        behavior("fail", of=status, times=None, status=status, message=f"No, {status}.", retry_after=1)
        for status in LASTING
    ]
    await llmock_server.queue(*faults)
    ended = await ends(fleet, {status: await start_task(fleet, status) for status in LASTING})
    for status, row in ended.items():
        assert row["exit_reason"] == "model_rejected"
        assert row["error"] == f"the model service answered {status}: No, {status}."
    assert Counter(request["status"] for request in await llmock_server.requests()) == dict.fromkeys(LASTING, 1)
    assert await llmock_server.verdict() == []


async def test_a_spent_limit_is_asked_once(fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock):
    await start_agent()
    words = "You have reached your specified API usage limits: your credit balance is too low"
    await llmock_server.queue(behavior("fail", times=None, status=429, message=words))
    row = (await ends(fleet, {1: await start_task(fleet, "spent")}))[1]
    assert (row["exit_reason"], row["error"]) == ("model_rejected", f"the model service answered 429: {words}")
    assert len(await llmock_server.requests()) == 1
    # The one finding that is meant: its judge goes by the status alone, but no waiting cures a limit that is spent.
    assert await llmock_server.verdict() == [("warning", "gave_up")]


async def test_a_long_wait_is_spent_in_the_queue_and_then_obeyed(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock
):
    await start_agent()
    asked_seconds = PATIENCE.longest_wait.total_seconds() + 1
    await llmock_server.queue(behavior("fail", status=429, retry_after=asked_seconds), completes(times=None))
    run_id = await start_task(fleet, "parked")
    run = await fleet.until_run(run_id, RunState.QUEUED)
    assert (run["attempts_spent"], run["exit_reason"]) == (0, None)

    async def is_due() -> bool:
        return bool(datetime.now(UTC) >= run["not_before"])

    await fleet.until(is_due)
    await fleet.order(run["job_id"])
    assert await answers(fleet, {1: run_id}) == {1: ANSWERED}
    requests = await llmock_server.requests()
    assert len(attempts(requests, "parked")) == 2
    assert len(set(attempts(requests, "parked"))) == 1, "the next attempt sends the same request"
    assert await llmock_server.verdict() == []


async def spend(llmock_server: Llmock, max_tokens: int) -> None:
    """Use the key's quota up, as somebody else who has it; none of it is in the record."""
    body = {"model": model_of("somebody else"), "max_tokens": max_tokens, "messages": []}
    spent = 0
    while spent < 2:
        try:
            await llmock_server.call("POST", "/anthropic/v1/messages", body, headers=KEY)
        except AssertionError as refusal:
            assert "answered 429" in str(refusal)  # noqa: PT017  the server's refusal is what is waited for
            return
        spent += max_tokens > 1
    raise AssertionError("the quota is larger than the test takes it to be")


@pytest.mark.parametrize(
    ("flags", "max_tokens"),
    [pytest.param(("--rpm", "60"), 1, id="rpm"), pytest.param(("--tpm", "240000"), 239_000, id="tpm")],
)
async def test_a_quota_is_kept_to(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, flags: Sequence[str], max_tokens: int
):
    await start_agent(capacity=CAPACITY)
    await llmock_server.queue(completes(times=None))
    await spend(llmock_server, max_tokens)
    await llmock_server.call("DELETE", "/_llmock/requests")
    runs = {number: await start_task(fleet, f"within {flags[0]} {number}", maxTokens=1_000) for number in range(3)}
    assert await answers(fleet, runs) == dict.fromkeys(runs, ANSWERED)
    statuses = Counter(request["status"] for request in await llmock_server.requests())
    assert statuses[200] == 3
    assert statuses[429] >= 1, "nothing was short"
    assert await llmock_server.verdict() == []


@pytest.mark.parametrize("flags", [("--context-window", "20")])
async def test_a_prompt_that_is_too_long_for_the_model(
    fleet: Fleet, start_agent: StartAgent, llmock_server: Llmock, flags: Sequence[str]
):
    await start_agent()
    row = (await ends(fleet, {1: await start_task(fleet, f"small {flags[1]}")}))[1]
    assert row["state"] == "failed"
    assert "prompt is too long: " in row["error"]
    assert "> 20 maximum" in row["error"]
    assert len(await llmock_server.requests()) == 1
    assert await llmock_server.verdict() == []
