"""The event stream: complete, in order, resumable to the message, and bounded."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import nats
import pytest

from quarterdeck import Client
from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from services.contracts.subjects import EVENTS_STREAM
from services.gateway.events.hub import Hub
from services.runtime.jetstream import Bus, BusUnavailableError, Message, StreamPosition
from services.runtime.postgres import Database
from services.runtime.pulling import PullConsumer
from tests.integration.conftest import execute
from tests.integration.gateway.conftest import KEY, Scheduler, StartGateway, is_healthy, running_gateway
from tests.integration.gateway.watching import STEP_SECONDS, Watcher, watching
from tests.integration.waiting import until_async


async def test_a_watcher_sees_all_of_a_job_and_then_its_stream_ends(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching(gateway, job) as watcher:
        assert await watcher.take(1) == ["job.submitted"]
        await scheduler.tell(job, "one")
        await scheduler.delta(job, "a")
        await scheduler.finish(job)
        assert await watcher.rest() == ["log:one", "delta:a", "job.started", "job.finished"]


async def test_a_finished_job_is_replayed_and_its_stream_ends(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    await scheduler.finish(job)
    async with watching(gateway, job) as watcher:
        assert await watcher.rest() == ["job.submitted", "job.started", "job.finished"]
    async with watching(gateway, job, after=watcher.last_id) as again:
        assert await again.rest() == []


async def test_a_cut_stream_goes_on_at_exactly_the_next_message_deltas_included(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    seen: list[str] = []
    last_id = ""
    texts = [f"{number}" for number in range(12)]
    for number, text in enumerate(texts):
        await scheduler.delta(job, text)
        if number % 4 == 3:
            await scheduler.tell(job, text)
    await scheduler.finish(job)
    expected = [
        line
        for number, text in enumerate(texts)
        for line in ([f"delta:{text}", f"log:{text}"] if number % 4 == 3 else [f"delta:{text}"])
    ]
    # Before its first delta the watcher was at the job's first event in the stream.
    begin = f"1:{await incarnation(scheduler)}:1"
    for cut_after in (1, 4, 2, 5, 100):
        async with watching(gateway, job, after=last_id or begin) as watcher:
            seen += await watcher.rest() if cut_after == 100 else await watcher.take(cut_after)
            last_id = watcher.last_id
    assert seen == [*expected, "job.started", "job.finished"]


async def incarnation(scheduler: Scheduler) -> str:
    return (await scheduler.bus.stream_position("EVENTS")).incarnation


async def test_a_stream_that_is_cut_while_it_is_live_misses_nothing(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching(gateway, job) as watcher:
        await watcher.take(1)
        await scheduler.delta(job, "a")
        assert await watcher.take(1) == ["delta:a"]
    await scheduler.delta(job, "b")
    await scheduler.tell(job, "one")
    async with watching(gateway, job, after=watcher.last_id) as again:
        assert await again.take(2) == ["delta:b", "log:one"]
        await scheduler.delta(job, "c")
        assert await again.take(1) == ["delta:c"]


async def test_the_last_replayed_event_can_be_resumed_with_the_deltas_behind_it(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching(gateway, job) as watcher:
        await watcher.take(1)
    await scheduler.delta(job, "a")
    async with watching(gateway, job, after=watcher.last_id) as again:
        assert await again.take(1) == ["delta:a"]


async def test_a_gateway_that_starts_again_resumes_with_deltas(database_url: str, nats_url: str, scheduler: Scheduler):
    async with running_gateway(database_url, nats_url) as first:
        await until_async(lambda: is_healthy(first))
        job = str((await first.post("/v1/jobs", json={"prompt": "x", "kind": "task"})).json()["id"])
        await scheduler.publish()
        begun = asyncio.Event()
        watch = asyncio.create_task(watch_to_the_end(first, job, begun))
        await begun.wait()
        await scheduler.delta(job, "a")
    seen, last_id = await watch  # the gateway stopped, and ended the stream cleanly
    await scheduler.delta(job, "b")
    async with running_gateway(database_url, nats_url) as second, watching(second, job, after=last_id) as again:
        await scheduler.delta(job, "c")
        seen += await again.take(4 - len(seen))
    assert seen == ["job.submitted", "delta:a", "delta:b", "delta:c"]


async def watch_to_the_end(client: httpx.AsyncClient, job: str, begun: asyncio.Event) -> tuple[list[str], str]:
    async with watching(client, job) as watcher:
        seen = await watcher.take(1)
        begun.set()
        return seen + await watcher.rest(), watcher.last_id


async def test_a_stream_goes_on_after_nats_was_wiped(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, nats_server: EmbeddedServers
):
    async with watching(gateway, job) as watcher:
        await watcher.take(1)
        await scheduler.tell(job, "before")
        assert await watcher.take(1) == ["log:before"]
        await wipe(nats_server)
        await scheduler.tell(job, "during", published=False)
        assert await watcher.take(1) == ["log:during"]
        await nats_server.start("nats")
        await until_async(lambda: is_healthy(gateway))
        await until_async(lambda: publishes(scheduler))
        await scheduler.tell(job, "after")
        assert await watcher.take(1) == ["log:after"]
    await scheduler.finish(job)
    async with watching(gateway, job, after=watcher.last_id) as again:
        assert await again.rest() == ["job.started", "job.finished"]


async def test_an_id_from_before_nats_was_wiped_resumes_from_postgres(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, nats_server: EmbeddedServers
):
    await scheduler.tell(job, "one")
    async with watching(gateway, job) as watcher:
        await watcher.take(2)
    await wipe(nats_server)
    await nats_server.start("nats")
    await until_async(lambda: is_healthy(gateway))
    await scheduler.tell(job, "two", "three", published=False)
    async with watching(gateway, job, after=watcher.last_id) as again:
        assert await again.take(2) == ["log:two", "log:three"]


async def wipe(nats_server: EmbeddedServers) -> None:
    await nats_server.kill("nats")
    shutil.rmtree(nats_server.folder / "nats")


async def publishes(scheduler: Scheduler) -> bool:
    try:
        await scheduler.publish()
    except BusUnavailableError:
        return False
    return True


async def test_events_that_nobody_publishes_are_found_in_postgres(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching(gateway, job) as watcher:
        await watcher.take(1)
        await scheduler.finish(job, published=False)
        assert await watcher.rest() == ["job.started", "job.finished"]


async def test_a_hole_in_what_nats_sends_is_filled_from_postgres(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, database: Database
):
    async with watching(gateway, job) as watcher:
        await watcher.take(1)
        await scheduler.tell(job, "lost", published=False)
        async with database.connection() as connection:
            await connection.execute("UPDATE events SET published_at = now()")
        await scheduler.tell(job, "heard")
        assert await watcher.take(2) == ["log:lost", "log:heard"]


async def test_an_event_that_is_too_large_for_nats_is_told_in_short_and_read_whole(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching(gateway, job) as watcher:
        await watcher.take(1)
        await scheduler.tell(job, "x" * 3_000_000, "behind it")
        (short, behind) = await watcher.take(2)
    assert short.startswith("log:xxx")
    assert short.endswith("x… [cut: 3,000,000 characters in all]")
    assert behind == "log:behind it"
    async with watching(gateway, job, after="1:-:0") as again:  # as its `leftOut` says
        assert await again.take(2) == [f"log:{'x' * 3_000_000}", "log:behind it"]


async def evict_all_events(nats_url: str) -> None:
    """As the stream does by itself, to keep within its size and age."""
    client = await nats.connect(nats_url, allow_reconnect=False)
    await client.jetstream().purge_stream(EVENTS_STREAM)
    await client.close()


async def test_who_resumes_where_the_stream_evicts_what_he_missed_goes_on(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
):
    async with watching(gateway, job) as watcher:
        await watcher.take(1)
        await scheduler.delta(job, "0")
        await watcher.take(1)
    for number in range(1, 40):
        await scheduler.delta(job, str(number))
    await scheduler.tell(job, "evicted")
    read, has_read = PullConsumer.batches, asyncio.Event()

    def evicting(*arguments: Any, **options: Any) -> Any:
        async def batches() -> AsyncIterator[list[Message]]:
            if options.get("until_quiet"):  # the place that he resumes from was there when he asked
                await evict_all_events(nats_url)
            async for messages in read(*arguments, **options):
                yield messages
            has_read.set()

        return batches()

    monkeypatch.setattr(PullConsumer, "batches", evicting)
    async with watching(gateway, job, after=watcher.last_id) as again, asyncio.timeout(STEP_SECONDS):
        await has_read.wait()  # before anything happens that would take it further
        await scheduler.finish(job)
        assert await again.rest() == ["log:evicted", "job.started", "job.finished"]


async def test_events_that_are_nowhere_any_more_are_a_gap_that_is_told(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, database_url: str
):
    await scheduler.tell(job, "one", "two", "three")
    await execute(database_url, "DELETE FROM events WHERE number IN (2, 3)")
    async with watching(gateway, job, after="1:-:0") as watcher:
        assert await watcher.take(2) == ["gap:2-3", "log:three"]
        assert watcher.last_id.startswith("4:")


async def test_a_message_that_comes_twice_is_sent_once(gateway: httpx.AsyncClient, scheduler: Scheduler, job: str):
    async with watching(gateway, job) as watcher:
        await watcher.take(1)
        await scheduler.tell(job, "one")
        await scheduler.tell(job, "two", published=False)
        await execute_again(scheduler)
        await scheduler.finish(job)
        assert await watcher.rest() == ["log:one", "log:two", "job.started", "job.finished"]


async def execute_again(scheduler: Scheduler) -> None:
    """Publish all durable events again, past JetStream's own deduplication."""
    database = scheduler._units.database
    async with database.connection() as connection:
        await connection.execute("UPDATE events SET published_at = NULL, id = gen_random_uuid()")
    await scheduler.publish()


async def test_a_stream_without_nats_is_served_from_postgres(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, nats_server: EmbeddedServers
):
    await nats_server.kill("nats")
    async with watching(gateway, job) as watcher:
        assert await watcher.take(1) == ["job.submitted"]
        await scheduler.finish(job, published=False)
        assert await watcher.rest() == ["job.started", "job.finished"]
    await nats_server.start("nats")


async def test_what_is_streamed_after_the_answer_began_reaches_its_watcher(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, monkeypatch: pytest.MonkeyPatch
):
    """On a busy machine something may be streamed between the answer's headers and its first look at the stream."""
    streamed = asyncio.Event()
    position = Hub.position

    async def late(hub: Hub) -> StreamPosition | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await streamed.wait()
        return await position(hub)

    monkeypatch.setattr(Hub, "position", late)
    async with watching(gateway, job) as watcher:
        await scheduler.delta(job, "the first")
        streamed.set()
        assert await watcher.take(2) == ["job.submitted", "delta:the first"]


async def test_a_watcher_that_does_not_read_is_cut_off_and_can_resume(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    texts = [f"{number:03d}" + "x" * 250_000 for number in range(100)]
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect(("127.0.0.1", gateway.base_url.port or 0))
    connection.setblocking(False)
    headers = "".join(f"{name}: {value}\r\n" for name, value in gateway.headers.items() if name == "authorization")
    request = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n"
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, request.encode())
    received = await loop.sock_recv(connection, 1_000)
    assert b"200 OK" in received
    for text in texts:
        await scheduler.delta(job, text)
    async with asyncio.timeout(30):
        while True:
            try:
                piece = await loop.sock_recv(connection, 65_536)
            except ConnectionResetError:
                break
            if not piece:
                break
            received += piece
    connection.close()
    assert texts[-1][:3].encode() + b"xxx" not in received
    whole = received[: received.rindex(b"\n\n")]
    last_id = whole[whole.rindex(b"\nid: ") + 5 :].partition(b"\n")[0].decode()
    count = whole.count(b"event: delta")
    assert 0 < count < 100
    async with watching(gateway, job, after=last_id) as watcher:
        assert await watcher.take(100 - count) == [f"delta:{text}" for text in texts[count:]]


async def test_an_id_that_no_stream_gave_out_is_refused(gateway: httpx.AsyncClient, job: str):
    for wrong in ("nonsense", "1:2", "-1:-:0", "9999:-:0", "99999999999999999999:-:0", "1:-:0\u00e9"):
        by_header = await gateway.get(f"/v1/jobs/{job}/events", headers={b"Last-Event-ID": wrong.encode()})
        assert by_header.status_code == 400, wrong
        assert by_header.json()["errors"][0]["field"] == "Last-Event-ID"
        by_query = await gateway.get(f"/v1/jobs/{job}/events", params={"lastEventId": wrong})
        assert by_query.status_code == 400, wrong
        assert by_query.json()["errors"][0]["field"] == "lastEventId"


async def test_the_python_client_follows_a_job_over_a_lost_connection(
    database_url: str, nats_url: str, scheduler: Scheduler
):
    (port,) = free_ports(1)
    seen: list[str] = []
    async with Client(f"http://127.0.0.1:{port}", KEY) as client:
        async with running_gateway(database_url, nats_url, port=port):
            job = str((await client.submit("say hello", kind="task")).id)
            await scheduler.publish()
            begun = asyncio.Event()
            follow = asyncio.create_task(follow_to_the_end(client, job, seen, begun))
            await begun.wait()
        await scheduler.tell(job, "between")
        async with running_gateway(database_url, nats_url, port=port):
            await scheduler.finish(job)
            await asyncio.wait_for(follow, 20)
            assert (await client.job(job)).state == "completed"
    assert seen == ["job.submitted", "log", "job.started", "job.finished"]


async def follow_to_the_end(client: Client, job: str, seen: list[str], begun: asyncio.Event) -> None:
    async for event in client.events(job):
        seen.append(event.kind)
        begun.set()


async def test_the_head_of_a_stream_is_its_headers(gateway: httpx.AsyncClient, job: str):
    answer = await gateway.head(f"/v1/jobs/{job}/events")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"


async def test_nats_may_come_after_the_gateway(
    start_gateway: StartGateway, database_url: str, nats_server: EmbeddedServers, database: Database
):
    await nats_server.kill("nats")
    gateway = await start_gateway(database_url, nats_server.nats_url)
    await until_async(lambda: is_degraded(gateway))
    job = str((await gateway.post("/v1/jobs", json={"prompt": "x", "kind": "task"})).json()["id"])
    async with watching(gateway, job) as watcher:
        assert await watcher.take(1) == ["job.submitted"]
        await nats_server.start("nats")
        await until_async(lambda: is_healthy(gateway))
        await finish_over_nats(database, nats_server.nats_url, job, watcher)


async def is_degraded(client: httpx.AsyncClient) -> bool:
    answer = await client.get("/health")
    return answer.status_code == 200 and answer.json()["status"] == "degraded"


async def finish_over_nats(database: Database, nats_url: str, job: str, watcher: Watcher) -> None:
    bus = Bus(nats_url, name="test")
    await bus.start()
    try:
        scheduler = Scheduler(database, bus)
        await scheduler.publish()
        await scheduler.finish(job)
        assert await watcher.rest() == ["job.started", "job.finished"]
    finally:
        await bus.close()
