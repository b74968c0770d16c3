"""Watching a job by the generated client: complete, typed, resumable to the event, and bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from services.contracts.v1 import jobs_pb2 as pb
from services.gateway.events.hub import Hub, Subscription
from services.gateway.rpc import calls, errors
from tests.integration.conftest import execute
from tests.integration.gateway.conftest import KEY, Scheduler, is_healthy, running_gateway
from tests.integration.gateway.rpc.conftest import Stub, status_of, stub_at
from tests.integration.waiting import until, until_async

STEP_SECONDS = 20.0


@dataclass
class Watcher:
    """One call of WatchJob."""

    call: Any
    last_position: str = ""

    async def take(self, count: int) -> list[str]:
        """The next ``count`` events, in brief."""
        found = await self.rest(most=count)
        assert len(found) == count
        return found

    async def rest(self, *, most: int = 1_000_000) -> list[str]:
        """All events until the stream ends with OK, or ``most`` of them."""
        found: list[str] = []
        while len(found) < most:
            async with asyncio.timeout(STEP_SECONDS):
                watched = await self.call.read()
            if watched is grpc.aio.EOF:
                break
            self.last_position = watched.position
            found.append(brief(watched))
        return found

    async def until_cut(self) -> tuple[list[str], grpc.StatusCode]:
        """All events until the stream ends early, and its status."""
        found: list[str] = []
        try:
            while True:
                found += await self.take(1)
        except grpc.aio.AioRpcError as error:
            return found, status_of(error)[0]


def brief(watched: pb.WatchedEvent) -> str:
    if watched.WhichOneof("what") == "gap":
        return f"gap:{watched.gap.missed_from}-{watched.gap.missed_to}"
    event = watched.event
    assert event.WhichOneof("payload") == event.kind.replace(".", "_")
    text = event.delta.text or event.log.message
    return f"{event.kind}:{text}" if text else event.kind


@asynccontextmanager
async def watching(stub: Stub, job_id: str, after: str = "") -> AsyncIterator[Watcher]:
    """Leaving the context cancels the call."""
    call = stub.WatchJob(pb.WatchJobRequest(job_id=job_id, last_position=after), timeout=None)
    yield Watcher(call)
    call.cancel()


async def test_a_watcher_sees_all_of_a_job_and_then_its_stream_ends(stub: Stub, scheduler: Scheduler, job: str):
    async with watching(stub, job) as watcher:
        assert await watcher.take(1) == ["job.submitted"]
        await scheduler.tell(job, "one")
        await scheduler.delta(job, "a")
        await scheduler.finish(job)
        assert await watcher.rest() == ["log:one", "delta:a", "job.started", "job.finished"]
        assert await watcher.call.code() is grpc.StatusCode.OK
    async with watching(stub, job, after=watcher.last_position) as again:
        assert await again.rest() == []
        assert await again.call.code() is grpc.StatusCode.OK


async def test_a_cut_stream_goes_on_at_exactly_the_next_event_deltas_included(
    stub: Stub, scheduler: Scheduler, job: str
):
    async with watching(stub, job) as watcher:
        seen = await watcher.take(1)
        position = watcher.last_position
    for text in ("a", "b", "c", "d"):
        await scheduler.delta(job, text)
        await scheduler.tell(job, text)
    await scheduler.finish(job)
    for count in (1, 3, 2):
        async with watching(stub, job, after=position) as watcher:
            seen += await watcher.take(count)
            position = watcher.last_position
    async with watching(stub, job, after=position) as watcher:
        seen += await watcher.rest()
    told = [f"{kind}:{text}" for text in ("a", "b", "c", "d") for kind in ("delta", "log")]
    assert seen == ["job.submitted", *told, "job.started", "job.finished"]


async def test_a_position_is_the_id_of_rests_stream(
    stub: Stub, gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    await scheduler.tell(job, "one")
    await scheduler.finish(job)
    async with watching(stub, job) as watcher:
        await watcher.take(2)
    answer = await gateway.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": watcher.last_position})
    kinds = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert kinds == ["job.started", "job.finished"]


async def test_events_that_are_nowhere_any_more_are_a_gap(
    stub: Stub, scheduler: Scheduler, job: str, database_url: str
):
    await scheduler.tell(job, "one", "two", "three")
    await execute(database_url, "DELETE FROM events WHERE number IN (2, 3)")
    async with watching(stub, job, after="1:-:0") as watcher:
        assert await watcher.take(2) == ["gap:2-3", "log:three"]


async def test_a_watcher_that_does_not_read_is_cut_off_and_goes_on_where_it_was(
    stub: Stub, scheduler: Scheduler, job: str
):
    texts = [f"{number:03d}" + "x" * 250_000 for number in range(100)]
    async with watching(stub, job) as watcher:
        await watcher.take(1)
        for text in texts:
            await scheduler.delta(job, text)
        seen, code = await watcher.until_cut()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert 0 < len(seen) < len(texts)
    async with watching(stub, job, after=watcher.last_position) as again:
        seen += await again.take(len(texts) - len(seen))
    assert seen == [f"delta:{text}" for text in texts]


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> list[Hub]:
    """Those of the gateways of this test, once they have a watcher."""
    found: list[Hub] = []
    subscribe = Hub.subscribe

    def remember(hub: Hub, job_id: str) -> AbstractContextManager[Subscription]:
        found.append(hub)
        return subscribe(hub, job_id)

    monkeypatch.setattr(Hub, "subscribe", remember)
    return found


async def test_a_client_that_has_gone_leaves_nothing_behind(stub: Stub, job: str, hubs: list[Hub]):
    async with watching(stub, job) as watcher:
        await watcher.take(1)
        assert hubs[0]._subscriptions
    await until(lambda: not hubs[0]._subscriptions)


async def test_nothing_is_kept_for_a_client_that_never_reads_again(
    stub: Stub, scheduler: Scheduler, job: str, hubs: list[Hub], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calls, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(errors, "ABORT_SECONDS", 0.3)
    async with watching(stub, job) as watcher:
        await watcher.take(1)
        for number in range(100):
            await scheduler.delta(job, f"{number}" + "x" * 250_000)
        await until(lambda: not hubs[0]._subscriptions)
        _, code = await watcher.until_cut()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "does not read" in await watcher.call.details()


async def test_a_stopping_gateway_sends_its_watchers_elsewhere(
    database_url: str, nats_url: str, scheduler: Scheduler, address: str
):
    async with stub_at(address, KEY) as stub:
        async with running_gateway(database_url, nats_url, grpc_listen=address) as client:
            await until_async(lambda: is_healthy(client))
            job = (await stub.SubmitJob(pb.SubmitJobRequest(prompt="x", kind="task"))).job.id
            await scheduler.publish()
            watcher = Watcher(stub.WatchJob(pb.WatchJobRequest(job_id=job)))
            seen = await watcher.take(1)
        assert await watcher.until_cut() == ([], grpc.StatusCode.UNAVAILABLE)
        await scheduler.delta(job, "a")
        async with running_gateway(database_url, nats_url, grpc_listen=address):
            call = stub.WatchJob(
                pb.WatchJobRequest(job_id=job, last_position=watcher.last_position), wait_for_ready=True
            )
            again = Watcher(call)
            seen += await again.take(1)
            await scheduler.finish(job)
            seen += await again.rest()
    assert seen == ["job.submitted", "delta:a", "job.started", "job.finished"]


async def test_a_position_that_no_stream_gave_out_is_refused(stub: Stub, job: str):
    for wrong in ("nonsense", "1:2", "9999:-:0", "1:-:0\N{ARABIC-INDIC DIGIT ONE}"):
        async with watching(stub, job, after=wrong) as watcher:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await watcher.take(1)
            code, problem = status_of(refused.value)
            assert (code, problem["errors"][0]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "lastPosition")


async def test_anothers_job_is_not_found(other_stub: Stub, job: str):
    async with watching(other_stub, job) as watcher:
        assert await watcher.until_cut() == ([], grpc.StatusCode.NOT_FOUND)
