"""The stream over all of a client's jobs: complete, in one order, resumable to the message, and nobody else's."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest

from quarterdeck import Client
from quarterdeck.sse import Event
from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from services.contracts import subjects
from services.gateway.events import hub
from services.jobs.eventlog import LoggedEvent
from services.jobs.outbox import Outbox
from services.runtime.jetstream import Bus, Outgoing
from services.runtime.postgres import Database
from services.scheduler.publication import EventPublisher
from tests.integration.conftest import execute
from tests.integration.gateway.conftest import KEY, Scheduler, is_healthy, running_gateway
from tests.integration.gateway.test_events import incarnation, publishes, wipe
from tests.integration.gateway.watching import ALL, watching, watching_all
from tests.integration.jobs import domain
from tests.integration.jobs.sequences import SEQUENCED
from tests.integration.waiting import until_async


async def new_job(client: httpx.AsyncClient, scheduler: Scheduler) -> str:
    answer = await client.post("/v1/jobs", json={"prompt": "say hello", "kind": "task"})
    await scheduler.publish()
    return str(answer.json()["id"])


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody told is looked for at every tick of the clock."""
    monkeypatch.setattr(hub, "LOOK_SECONDS", 0.5)


async def test_all_jobs_events_come_as_they_happen_from_now_on(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching_all(gateway) as watcher:
        other = await new_job(gateway, scheduler)
        await scheduler.tell(other, "one")
        await scheduler.delta(job, "a")
        await scheduler.finish(job)
        await scheduler.tell(other, "two")
        expected = ["job.submitted", "log:one", "delta:a", "job.started", "job.finished", "log:two"]
        assert await watcher.take(6) == expected
        assert watcher.last_id.startswith("6:")


async def test_each_client_sees_its_own_events_alone(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching_all(gateway) as watcher, watching_all(other_client) as other_watcher:
        theirs = await new_job(other_client, scheduler)
        for number in range(3):
            await scheduler.delta(theirs, f"theirs {number}")
            await scheduler.delta(job, f"ours {number}")
            await scheduler.tell(theirs, f"theirs {number}")
            await scheduler.tell(job, f"ours {number}")
        assert await watcher.take(6) == [f"{kind}:ours {number}" for number in range(3) for kind in ("delta", "log")]
        expected = [f"{kind}:theirs {number}" for number in range(3) for kind in ("delta", "log")]
        assert await other_watcher.take(7) == ["job.submitted", *expected]
    for client, whose in ((gateway, "ours"), (other_client, "theirs")):
        async with watching_all(client, after=0) as again:
            assert await again.take(4) == ["job.submitted", *(f"log:{whose} {number}" for number in range(3))]


async def test_a_cut_stream_goes_on_at_exactly_the_next_message_deltas_included(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    theirs = await new_job(other_client, scheduler)
    async with watching_all(gateway) as watcher:
        last_id = watcher.last_id  # it was sent no event at all
    expected: list[str] = []
    for number in range(12):
        await scheduler.delta(job, f"{number}")
        await scheduler.delta(theirs, "theirs")
        await scheduler.tell(theirs, "theirs")
        expected.append(f"delta:{number}")
        if number % 4 == 3:
            await scheduler.tell(job, f"{number}")
            expected.append(f"log:{number}")
    seen: list[str] = []
    for cut_after in (1, 4, 2, 5, 3):
        async with watching_all(gateway, last_id) as watcher:
            seen += await watcher.take(cut_after)
            last_id = watcher.last_id
    assert seen == expected


async def test_a_stream_that_is_cut_while_it_is_live_misses_nothing(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching_all(gateway) as watcher:
        await scheduler.delta(job, "a")
        assert await watcher.take(1) == ["delta:a"]
    await scheduler.delta(job, "b")
    await scheduler.tell(job, "one")
    async with watching_all(gateway, watcher.last_id) as again:
        assert await again.take(2) == ["delta:b", "log:one"]
        await scheduler.delta(job, "c")
        assert await again.take(1) == ["delta:c"]


async def test_a_gateway_that_starts_again_resumes_with_deltas_of_jobs_it_has_not_heard_of(
    database_url: str, nats_url: str, scheduler: Scheduler
):
    async with running_gateway(database_url, nats_url) as first:
        await until_async(lambda: is_healthy(first))
        job = await new_job(first, scheduler)
        async with watching_all(first) as watcher:
            await scheduler.delta(job, "a")
            seen = await watcher.take(1)
    await scheduler.delta(job, "b")
    async with running_gateway(database_url, nats_url) as second:
        await until_async(lambda: is_healthy(second))
        async with watching_all(second, watcher.last_id) as again, watching_all(second) as new:
            await scheduler.delta(job, "c")
            seen += await again.take(2)
            assert await new.take(1) == ["delta:c"]
    assert seen == ["delta:a", "delta:b", "delta:c"]


async def test_all_is_replayed_from_a_place_and_then_goes_on(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    await scheduler.tell(job, *(f"{number}" for number in range(1_200)))
    expected = ["job.submitted", *(f"log:{number}" for number in range(1_200))]
    for after in (0, 700, 1_203):
        async with watching_all(gateway, after=after) as watcher:
            assert await watcher.take(len(expected) - after) == expected[after:]
            await scheduler.tell(job, "live")
            assert await watcher.take(1) == ["log:live"]
            await scheduler.delta(job, "live")
            assert await watcher.take(1) == ["delta:live"]
            expected.append("log:live")


async def test_events_that_wait_to_be_published_come_once_they_are(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    async with watching_all(gateway) as watcher:
        await scheduler.tell(job, "one", "two", published=False)
        await scheduler.delta(job, "a")
        assert await watcher.take(1) == ["delta:a"]
        await scheduler.publish()
        assert await watcher.take(2) == ["log:one", "log:two"]


async def test_a_stream_goes_on_after_nats_was_wiped(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, nats_server: EmbeddedServers
):
    async with watching_all(gateway) as watcher:
        await scheduler.tell(job, "before")
        assert await watcher.take(1) == ["log:before"]
        await wipe(nats_server)
        await scheduler.tell(job, "during", published=False)
        await nats_server.start("nats")
        await until_async(lambda: is_healthy(gateway))
        await until_async(lambda: publishes(scheduler))
        assert await watcher.take(1) == ["log:during"]
        await scheduler.tell(job, "after")
        assert await watcher.take(1) == ["log:after"]
    await scheduler.delta(job, "a")
    await scheduler.tell(job, "later")
    async with watching_all(gateway, watcher.last_id) as again:
        assert await again.take(2) == ["delta:a", "log:later"]


async def test_an_id_from_before_nats_was_wiped_resumes_from_postgres(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, nats_server: EmbeddedServers
):
    async with watching_all(gateway) as watcher:
        await scheduler.tell(job, "one")
        await watcher.take(1)
    await scheduler.tell(job, "two", "three")
    await wipe(nats_server)
    async with watching_all(gateway, watcher.last_id) as again:
        assert await again.take(2) == ["log:two", "log:three"]
    await nats_server.start("nats")
    await until_async(lambda: is_healthy(gateway))
    async with watching_all(gateway, watcher.last_id) as again:
        assert await again.take(2) == ["log:two", "log:three"]


async def given_out(database: Database, message: str) -> list[LoggedEvent]:
    """What the outbox gives out last, with this log line at its end: it has its place, and is not sent yet."""
    outbox = Outbox(database)
    events = await domain.given_out(outbox, 0, most=10)
    while events and events[-1].data != {"message": message}:
        events = await domain.given_out(outbox, events[-1].sequence or 0, most=10)
    assert events
    return events


async def lose(scheduler: Scheduler, database: Database, job: str, message: str) -> None:
    """An event that NATS had and lost before anybody heard it."""
    await scheduler.tell(job, message, published=False)
    events = await given_out(database, message)
    assert await domain.given_out(Outbox(database), events[-1].sequence or 0, most=10) == []


async def test_a_hole_in_what_nats_sends_is_filled_from_postgres(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, database: Database
):
    async with watching_all(gateway) as watcher:
        begin = watcher.last_id
        await scheduler.tell(job, "one")
        assert await watcher.take(1) == ["log:one"]
        await lose(scheduler, database, job, "lost")
        await scheduler.tell(job, "heard")
        assert await watcher.take(2) == ["log:lost", "log:heard"]
    async with watching_all(gateway, begin) as again:
        assert await again.take(3) == ["log:one", "log:lost", "log:heard"]


async def test_what_nobody_hears_is_looked_for(
    soon: None, gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, database: Database
):
    async with watching_all(gateway) as first, watching_all(gateway) as second:
        await lose(scheduler, database, job, "lost")
        for watcher in (first, second):
            assert await watcher.take(1) == ["log:lost"]
        await scheduler.delta(job, "a")
        await scheduler.tell(job, "heard")
        for watcher in (first, second):
            assert await watcher.take(2) == ["delta:a", "log:heard"]


async def test_a_message_that_comes_twice_is_sent_once(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, database: Database
):
    async with watching_all(gateway) as watcher:
        await scheduler.tell(job, "one", "two", published=False)
        for round_ in range(3):
            for event in await given_out(database, "two"):
                subject = subjects.event(str(event.job_id), str(event.run_id or ""), event.kind)
                headers = {
                    subjects.SEQUENCE_HEADER: str(event.sequence),
                    subjects.CLIENT_HEADER: str(event.client_id),
                }
                await scheduler.bus.publish(Outgoing(subject, event.encoded(), f"{event.id}{round_}", headers))
        await scheduler.delta(job, "a")
        assert await watcher.take(3) == ["log:one", "log:two", "delta:a"]


async def test_events_that_are_nowhere_any_more_are_a_gap_that_is_told(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, database_url: str
):
    await scheduler.tell(job, "one", "two", "three")
    await execute(database_url, f"DELETE FROM events WHERE id IN (SELECT id FROM {SEQUENCED} e WHERE place <= 3)")
    async with watching_all(gateway, after=0) as watcher:
        assert await watcher.take(2) == ["gap:1-3", "log:three"]
        assert watcher.last_id.startswith("4:")
    async with watching_all(gateway, after=3) as watcher:
        assert await watcher.take(1) == ["log:three"]
    await execute(database_url, "DELETE FROM events")
    async with watching_all(gateway, after=1) as watcher:
        assert await watcher.take(1) == ["gap:2-4"]
        await scheduler.tell(job, "four")
        assert await watcher.take(1) == ["log:four"]


async def test_only_what_was_asked_for_comes(gateway: httpx.AsyncClient, scheduler: Scheduler, job: str):
    async with (
        watching_all(gateway, kind="log,job.finished") as some,
        watching_all(gateway, deltas="false") as durable,
        watching(gateway, job, kind="log") as of_job,
    ):
        await scheduler.delta(job, "a")
        await scheduler.tell(job, "one")
        await scheduler.finish(job)
        assert await some.take(2) == ["log:one", "job.finished"]
        assert await durable.take(3) == ["log:one", "job.started", "job.finished"]
        assert await of_job.rest() == ["log:one"]
    async with watching_all(gateway, after=0, kind="job.submitted,job.finished") as again:
        assert await again.take(2) == ["job.submitted", "job.finished"]
    async with watching(gateway, job, kind="job.submitted") as replayed:
        assert await replayed.rest() == ["job.submitted"]


async def test_an_id_that_no_stream_gave_out_is_refused(gateway: httpx.AsyncClient, job: str):
    for wrong in ("nonsense", "1:2", "-1:-:0", "9999:-:0", "9" * 18 + ":-:0", "9" * 19 + ":-:0"):
        by_header = await gateway.get(ALL, headers={"Last-Event-ID": wrong})
        assert by_header.status_code == 400, wrong
        assert by_header.json()["errors"][0]["field"] == "Last-Event-ID"
        by_query = await gateway.get(ALL, params={"lastEventId": wrong})
        assert by_query.status_code == 400, wrong
        assert by_query.json()["errors"][0]["field"] == "lastEventId"
    for name, value in (("after", "-1"), ("after", "99999"), ("after", "x"), ("kind", "nonsense"), ("deltas", "maybe")):
        answer = await gateway.get(ALL, params={name: value})
        assert answer.status_code == 400, value
        assert answer.json()["errors"][0]["field"].startswith(name)


async def test_the_head_of_a_stream_is_its_headers(gateway: httpx.AsyncClient, job: str):
    answer = await gateway.head(ALL)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"


async def test_a_stream_needs_a_key(gateway: httpx.AsyncClient):
    answer = await gateway.get(ALL, headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401


async def test_a_place_of_the_stream_is_the_one_that_the_publisher_gave(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, database: Database, nats_url: str
):
    """Another publisher goes on where the first one ended."""
    other = Bus(nats_url, name="other")
    await other.start(wait=timedelta(seconds=10))
    async with watching_all(gateway) as watcher:
        await scheduler.tell(job, "one")
        await scheduler.tell(job, "two", published=False)
        publisher = EventPublisher(Outbox(database), other)
        for _ in ("what the first one has sent already", "what is new"):
            await publisher.run_once()
        assert await watcher.take(2) == ["log:one", "log:two"]
        assert watcher.last_id == f"3:{await incarnation(scheduler)}:3"
    await other.close()


async def test_events_of_many_jobs_at_once_come_to_every_watcher_in_one_order(
    gateway: httpx.AsyncClient, scheduler: Scheduler
):
    jobs = [await new_job(gateway, scheduler) for _ in range(5)]
    async with watching_all(gateway, after=0) as early:
        await early.take(5)
        telling = [asyncio.create_task(scheduler.tell(job, *"abcd", published=False)) for job in jobs]
        async with watching_all(gateway, after=0) as late:
            await asyncio.gather(*telling)
            await scheduler.publish()
            assert await early.take(20) == (await late.take(25))[5:]
            assert early.last_id.partition(":")[0] == late.last_id.partition(":")[0] == "25"


@dataclass
class Following:
    """Reads with the Python client until told to stop."""

    events: AsyncGenerator[Event, None]
    seen: list[str] = field(default_factory=list)
    told: int = 0

    async def read(self) -> None:
        async with aclosing(self.events) as events:
            async for event in events:
                self.seen.append(str(event.payload.get("message") or event.payload.get("text") or event.kind))


async def test_the_python_client_follows_all_jobs_over_a_lost_connection(
    database_url: str, nats_url: str, scheduler: Scheduler
):
    (port,) = free_ports(1)
    async with Client(f"http://127.0.0.1:{port}", KEY) as client:
        now, every = Following(client.all_events()), Following(client.all_events(after=0))
        logs = Following(client.all_events(after=1, kinds=["log"], deltas=False))
        async with running_gateway(database_url, nats_url, port=port) as gateway:
            await until_async(lambda: is_healthy(gateway))
            job = await new_job(gateway, scheduler)
            reading = [asyncio.create_task(each.read()) for each in (now, every, logs)]
            await until_async(lambda: says_something(scheduler, job, now))
        await scheduler.tell(job, "between")
        async with running_gateway(database_url, nats_url, port=port):
            await scheduler.delta(job, "delta")
            await scheduler.finish(job)
            await until_async(lambda: ends_with(logs, "between"))
            await until_async(lambda: ends_with(now, "job.finished"))
            await until_async(lambda: ends_with(every, "job.finished"))
            for task in reading:
                task.cancel()
            await asyncio.wait(reading, timeout=10)
    begun = every.seen[1:-4]
    assert every.seen == ["job.submitted", *begun, "between", "delta", "job.started", "job.finished"]
    assert begun == [f"begun {number}" for number in range(len(begun))]
    assert now.seen == every.seen[-len(now.seen) :]
    assert logs.seen == [*begun, "between"]


async def says_something(scheduler: Scheduler, job: str, following: Following) -> bool:
    """Tell one thing after the other, until it is heard: when a stream without a past begins, nobody knows."""
    if not following.seen:
        await scheduler.tell(job, f"begun {following.told}")
        following.told += 1
    return bool(following.seen)


async def ends_with(following: Following, word: str) -> bool:
    return following.seen[-1:] == [word]
