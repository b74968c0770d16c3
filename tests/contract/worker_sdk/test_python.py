"""The Python client over real connections, with a server that breaks them."""

import asyncio
from datetime import timedelta

import pytest

from quarterdeck.worker import ClaudeCodeWorker, Code, Session, WorkerError
from tests.contract.worker_sdk.standin import CONTENTS, TOLD, StandIn, rendered
from tests.integration.waiting import until

SECONDS = 30
IDS = [told["id"] for told in TOLD]


def to(stand_in: StandIn, wish: str, timeout: timedelta = timedelta(seconds=SECONDS)) -> ClaudeCodeWorker:
    return ClaudeCodeWorker(f"{stand_in.address}/{wish}", timeout=timeout)


async def ids_of(session: Session) -> list[str]:
    async with asyncio.timeout(SECONDS):
        return [event.id async for event in session.events()]


@pytest.mark.parametrize("wish", ["cut", "end"])
async def test_a_server_that_hangs_up(stand_in: StandIn, wish: str) -> None:
    async def read(size: int) -> None:
        async with to(stand_in, f"{wish}/{size}") as client:
            assert await ids_of(await client.interactive.start("p", "owner/repo")) == IDS, size

    await asyncio.gather(*(read(size) for size in range(0, len(rendered(0)), 40)))


@pytest.mark.parametrize("wish", ["each", "lost", "unarrived"])
async def test_a_server_that_answers_late_or_little(stand_in: StandIn, wish: str) -> None:
    async with to(stand_in, f"{wish}/0") as client:
        assert await ids_of(await client.interactive.start("p")) == IDS


async def test_a_silent_connection_is_made_anew(stand_in: StandIn) -> None:
    async with to(stand_in, "silent/0") as client:
        session = await client.interactive.start("p")
    async with to(stand_in, "silent/0", timeout=timedelta(milliseconds=200)) as client:
        again = client.interactive.attach(session.session_id)
        reading = asyncio.create_task(ids_of(again))
        attached = stand_in.seen(session.session_id).attached
        await until(lambda: len(attached) > 1)
        await again.close()
        assert await reading == []


async def test_the_end_of_a_session_ends_the_loop_that_waits_for_it(stand_in: StandIn) -> None:
    async with to(stand_in, "silent/600") as client:
        session = await client.interactive.start("p", "owner/repo")
        assert (await session.status()).status == "processing"
        reading = asyncio.create_task(ids_of(session))
        await until(lambda: session.last_event_id != "")
        seen = stand_in.seen(session.session_id)
        await session.end()
        assert IDS[:2] == (await reading)[:2]
        await until(seen.gone.is_set)
        with pytest.raises(WorkerError) as raised:
            await session.status()
    assert (raised.value.code, raised.value.status) == (Code.NOT_FOUND, 404)


async def test_a_loop_that_is_cancelled_closes_its_connection(stand_in: StandIn) -> None:
    async with to(stand_in, "silent/600") as client:
        session = await client.interactive.start("p")
        reading = asyncio.create_task(ids_of(session))
        await until(lambda: session.last_event_id != "")
        reading.cancel()
        await asyncio.wait({reading})
        await until(stand_in.seen(session.session_id).gone.is_set)
    assert reading.cancelled()


async def test_the_stream_is_what_the_model_writes(stand_in: StandIn) -> None:
    async with to(stand_in, "whole/0") as client:
        session = await client.interactive.start("p", "owner/repo")
        assert [chunk.content async for chunk in session.stream()] == list(CONTENTS)
