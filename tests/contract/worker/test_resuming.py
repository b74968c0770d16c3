"""A session's stream can be broken off anywhere and taken up again, and what becomes of the work meanwhile."""

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import httpx
import pytest
from httpx_sse import ServerSentEvent

from services.contracts.words import EventKind
from services.gateway.dialects.worker import NAME
from tests.contract.serving import fleet_of
from tests.contract.worker.conftest import Worker, running_worker
from tests.contract.worker.stage import LAST, START, TURN, Stage, attached, data_of, names, started
from tests.integration.waiting import until_async


@pytest.fixture
def api(shared_worker: Worker) -> httpx.AsyncClient:
    return shared_worker.api.alone


@pytest.fixture
def stage(shared_worker: Worker) -> Stage:
    return shared_worker.stage


@pytest.fixture
def session_id() -> str:
    return f"session {uuid4()}"


def pairs(messages: list[ServerSentEvent]) -> list[tuple[str, str]]:
    return [(each.event, each.data) for each in messages]


@pytest.mark.parametrize("way", ["GET", "POST"])
async def test_a_client_that_leaves_in_the_middle_misses_nothing(
    api: httpx.AsyncClient, stage: Stage, session_id: str, way: str
) -> None:
    async with started(api, sessionId=session_id) as first:
        run = await stage.begin(session_id)
        await stage.turn(run, 1, "a", "b")
        await first.until("claude_delta")
    assert await stage.state_of(session_id) == "running"
    await stage.turn(run, 2, "c", "d")
    after = first.seen[-1].id
    again = attached(api, session_id, after) if way == "GET" else started(api, sessionId=session_id, after=after)
    async with again as second:
        assert second.session_id == session_id
        await stage.turn(run, 3, "e", "f")
        await stage.complete(run)
        await second.rest()
    assert names(first.seen + second.seen) == ["connected", *TURN, *TURN, *TURN, "complete"]


async def assert_goes_on_everywhere(api: httpx.AsyncClient, session_id: str, whole: list[ServerSentEvent]) -> None:
    """After each of the frames, and before the first, an ended session goes on as it did."""
    assert len({each.id for each in whole}) == len(whole)
    for index, after in enumerate(["", *(message.id for message in whole[:-1])]):
        async with attached(api, session_id, after) as frames:
            assert pairs(await frames.rest()) == pairs(whole[index:])


async def test_from_each_frame_on_the_rest_is_the_same(api: httpx.AsyncClient, stage: Stage, session_id: str) -> None:
    async with started(api, sessionId=session_id) as live:
        await stage.play(session_id)
        whole = await live.rest()
    await assert_goes_on_everywhere(api, session_id, whole)
    async with started(api, sessionId=session_id, after=whole[0].id) as frames:
        assert pairs(await frames.rest()) == pairs(whole[1:])


async def test_what_the_model_writes_comes_behind_the_start_of_its_turn(
    api: httpx.AsyncClient, stage: Stage, session_id: str
) -> None:
    async with started(api, sessionId=session_id) as live:
        run = await stage.begin(session_id)
        await stage.tell(run, (EventKind.TURN_STARTED, {"turn": 1, "model": "m"}))
        for turn in (1, 2, 2, 3):
            await stage.delta(run, turn, f"of {turn}")
        await live.until("claude_delta")
        ended = [(EventKind.TURN_ENDED, {"turn": turn}) for turn in (1, 2, 3)]
        begun = [(EventKind.TURN_STARTED, {"turn": turn, "model": "m"}) for turn in (2, 3)]
        await stage.tell(run, ended[0], (EventKind.LOG, {"message": "between"}), begun[0])
        await stage.tell(run, ended[1], begun[1])
        await stage.delta(run, 4, "of a turn that never began")
        await stage.tell(run, ended[2])
        await stage.complete(run)
        whole = await live.rest()
    told = [(each.event, data_of(each).get("turn")) for each in whole if each.event.startswith("claude_")]
    assert told == [
        *(("claude_start", 1), ("claude_delta", 1), ("claude_end", 1)),
        *(("claude_start", 2), ("claude_delta", 2), ("claude_delta", 2), ("claude_end", 2)),
        *(("claude_start", 3), ("claude_delta", 3), ("claude_end", 3)),
    ]
    await assert_goes_on_everywhere(api, session_id, whole)


@pytest.mark.parametrize("parameters", [{}, {"lastEventId": ""}])
async def test_without_a_place_all_of_it_comes(
    api: httpx.AsyncClient, stage: Stage, session_id: str, parameters: dict[str, str]
) -> None:
    async with started(api, sessionId=session_id) as live:
        await stage.play(session_id)
        last = (await live.rest())[-1]
    async with api.stream("GET", START, params={"sessionId": session_id} | parameters) as answer:
        told = [line async for line in answer.aiter_lines() if line.startswith("event: ")]
    assert [told[0], told[-1]] == ["event: connected", "event: complete"]
    over = await api.get(START, params={"sessionId": session_id, "lastEventId": last.id})
    assert (over.status_code, over.headers["X-Session-Id"], over.content) == (204, session_id, b"")


async def test_by_default_the_work_goes_on_alone(api: httpx.AsyncClient, stage: Stage, session_id: str) -> None:
    async with started(api, sessionId=session_id) as frames:
        run = await stage.begin(session_id)
        await frames.until("status")
    await stage.turn(run, 1, "alone")
    await stage.complete(run)
    async with attached(api, session_id, frames.seen[-1].id) as again:
        assert (await again.rest())[-1].event == "complete"


@pytest.mark.parametrize("leaves", ["start", "attach"])
async def test_the_work_is_cancelled_where_its_client_wants_that(
    api: httpx.AsyncClient, stage: Stage, session_id: str, leaves: str
) -> None:
    options = {"onDisconnect": "cancel"}
    async with started(api, sessionId=session_id, options=options) as frames:
        await stage.begin(session_id)
        if leaves == "attach":
            async with attached(api, session_id) as beside:
                await beside.until("status")
        else:
            await frames.until("status")
            await frames.answer.aclose()

        async def is_cancelled() -> bool:
            return await stage.state_of(session_id) == "cancelling"

        await until_async(is_cancelled)
    assert (await api.get("/interactive/status", params={"sessionId": session_id})).status_code == 404


async def test_a_session_that_ended_before_its_client_left_is_completed(
    api: httpx.AsyncClient, stage: Stage, session_id: str
) -> None:
    async with started(api, sessionId=session_id, options={"onDisconnect": "cancel"}) as frames:
        await stage.play(session_id)
        assert (await frames.rest())[-1].event in LAST
    assert await stage.state_of(session_id) == "completed"


async def test_many_may_follow_one_session(api: httpx.AsyncClient, stage: Stage, session_id: str) -> None:
    async def follow() -> list[tuple[str, str]]:
        async with attached(api, session_id) as frames:
            return pairs(await frames.rest())

    async with started(api, sessionId=session_id) as live, asyncio.TaskGroup() as group:
        following = [group.create_task(follow()) for _ in range(3)]
        await stage.play(session_id)
        whole = pairs(await live.rest())
    assert all(each.result() == whole for each in following)


async def test_the_end_of_a_gateway_cancels_nothing(database_url: str, nats_url: str, session_id: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, AsyncExitStack() as leaving:
        async with running_worker(database_url, nats_url) as running:
            client.base_url = running.api.alone.base_url
            options = {"onDisconnect": "cancel"}
            await leaving.enter_async_context(started(client, sessionId=session_id, options=options))
            run = await running.stage.begin(session_id)
        async with fleet_of(database_url, NAME) as fleet:
            row = await fleet.domain.row("jobs", run.hold.job_id)
    assert (row["state"], row["cancel_requested_at"]) == ("running", None)
