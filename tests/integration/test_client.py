"""The client against a gateway over real sockets that breaks off, refuses and repeats."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import uuid4

import pytest
from aiohttp import web

from quarterdeck import (
    ApiError,
    Client,
    ConflictError,
    Event,
    InvalidRequestError,
    NotConfiguredError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
    WaitTimeoutError,
)
from services.contracts.rest import Job
from services.contracts.words import JobState
from tests.integration.fake_gateway import (
    API_KEY,
    DIFF,
    FakeGateway,
    Stream,
    make_event,
    make_job,
    make_run,
    problem,
    running,
)

DEADLINE_SECONDS = 10


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with running(FakeGateway()) as served:
        yield served


@pytest.fixture
async def client(gateway: FakeGateway) -> AsyncIterator[Client]:
    async with Client(gateway.address, API_KEY, patience=timedelta(seconds=3)) as connected:
        yield connected


def with_events(gateway: FakeGateway) -> Job:
    """A finished job of twelve events, three of them deltas."""
    job = make_job()
    run = make_run(job)
    gateway.add(job, run)
    durable = ["job.submitted", "job.started", "run.started", "turn.started", "tool.started", "tool.ended"]
    gateway.events = [make_event(number, kind, run=run.id) for number, kind in enumerate(durable, 1)]
    gateway.events += [make_event(0, "delta", run=run.id, type="text", text=str(number)) for number in range(3)]
    gateway.events += [make_event(7, "turn.ended"), make_event(8, "run.finished"), make_event(9, "job.finished")]
    return job


async def all_events(client: Client, job: Job, **options) -> list[Event]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return [event async for event in client.events(job.id, **options)]


def last_event_ids(gateway: FakeGateway) -> list[str | None]:
    return [request.headers.get("Last-Event-ID") for request in gateway.requests if request.path.endswith("/events")]


async def test_events_come_in_order_to_the_end(client, gateway):
    job = with_events(gateway)
    events = await all_events(client, job)
    assert [event.number for event in events] == [1, 2, 3, 4, 5, 6, 0, 0, 0, 7, 8, 9]
    assert [event.payload["text"] for event in events if event.kind == "delta"] == ["0", "1", "2"]
    assert events[0].time == datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize("cut_at", range(12))
async def test_a_stream_cut_in_a_message_is_taken_up_without_loss_or_repeat(client, gateway, cut_at):
    job = with_events(gateway)
    whole = await all_events(client, job)
    gateway.requests.clear()
    gateway.streams = [Stream(events=cut_at, cut=True), Stream()]
    assert await all_events(client, job) == whole
    assert last_event_ids(gateway) == [None, whole[cut_at - 1].id if cut_at else None]


async def test_a_stream_that_breaks_again_and_again_and_repeats_itself_still_gives_each_event_once(client, gateway):
    job = with_events(gateway)
    whole = await all_events(client, job)
    gateway.streams = [Stream(events=2), Stream(events=4, overlap=2, cut=True), Stream(events=5, overlap=3), Stream()]
    assert await all_events(client, job) == whole


async def test_a_resumption_repeats_nothing_that_was_seen(client, gateway):
    job = with_events(gateway)
    whole = await all_events(client, job)
    assert await all_events(client, job, after=whole[6].id) == whole[7:]


async def test_a_jump_over_durable_events_is_not_taken(client, gateway):
    job = with_events(gateway)
    whole = await all_events(client, job)
    gateway.streams = [Stream(events=2, cut=True), Stream(skip=2), Stream()]
    assert await all_events(client, job) == whole


async def test_a_stream_that_always_jumps_is_an_error_in_the_end(client, gateway):
    job = with_events(gateway)
    gateway.streams = [Stream(skip=2)] * 30
    with pytest.raises(UnavailableError, match="events 1 to 2 did not come"):
        await all_events(client, job, patience=timedelta(seconds=0.5))


async def test_a_gap_that_is_announced_is_passed_on_and_gone_over(client, gateway):
    job = with_events(gateway)
    gateway.events[1:4] = [{"kind": "gap", "missedFrom": 2, "missedTo": 4}]
    events = await all_events(client, job)
    assert [(event.kind, event.number) for event in events[:3]] == [
        ("job.submitted", 1),
        ("gap", 0),
        ("tool.started", 5),
    ]
    assert events[1].payload["missedTo"] == 4


async def test_a_resumption_behind_the_last_event_of_a_finished_job_ends(client, gateway):
    job = with_events(gateway)
    whole = await all_events(client, job)
    assert await all_events(client, job, after=whole[-1].id) == []


async def test_a_gateway_that_goes_away_for_good_ends_the_stream_with_an_error(client, gateway):
    job = with_events(gateway)
    gateway.streams = [Stream(events=3, cut=True)]
    async with aclosing(client.events(job.id, patience=timedelta(seconds=0.5))) as events:
        assert [(await anext(events)).number for _ in range(3)] == [1, 2, 3]
        gateway.faults = [problem(503, "Unavailable", "no database") for _ in range(50)]
        with pytest.raises(UnavailableError, match="no database"):
            await asyncio.wait_for(anext(events), DEADLINE_SECONDS)


async def test_events_of_an_unknown_job_are_not_waited_for(client):
    with pytest.raises(NotFoundError):
        await all_events(client, make_job())


async def test_wait_returns_the_final_job_over_a_broken_stream(client, gateway):
    job = with_events(gateway)
    gateway.streams = [Stream(events=5, cut=True)]
    assert (await client.wait(job.id)).state is JobState.COMPLETED


async def test_wait_gives_up_at_its_deadline(client, gateway):
    job = gateway.add(make_job(state=JobState.RUNNING, outcome=None, finished_at=None))
    with pytest.raises(WaitTimeoutError, match=str(job.id)):
        await client.wait(job.id, deadline=timedelta(seconds=0.3))


async def test_reads_are_repeated_while_the_gateway_cannot_serve(client, gateway):
    job = gateway.add(make_job())
    gateway.faults = [problem(status, "Unavailable", "not now") for status in (502, 503, 504)]
    assert (await client.job(job.id)).id == job.id
    assert len(gateway.requests) == 4


async def test_retry_after_in_seconds_is_obeyed(client, gateway):
    job = gateway.add(make_job())
    gateway.faults = [problem(429, "Too Many Requests", "slower", retry_after="1")]
    started = time.monotonic()
    await client.job(job.id)
    assert 1.0 <= time.monotonic() - started < 3.0


async def test_retry_after_as_a_date_is_obeyed(client, gateway):
    job = gateway.add(make_job())
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    gateway.faults = [problem(503, "Unavailable", "restarting", retry_after=date)]
    started = time.monotonic()
    await client.job(job.id)
    assert time.monotonic() - started > 0.8


async def test_a_wait_that_is_longer_than_the_patience_is_not_begun(client, gateway):
    gateway.faults = [problem(429, "Too Many Requests", "slower", retry_after="60")]
    started = time.monotonic()
    with pytest.raises(RateLimitedError) as raised:
        await client.job(uuid4())
    assert raised.value.retry_after_seconds == 60
    assert time.monotonic() - started < 1
    assert len(gateway.requests) == 1


async def test_submits_are_repeated_with_one_idempotency_key(client, gateway):
    gateway.faults = [problem(503, "Unavailable", "not now") for _ in range(2)]
    await client.submit("do it", ["https://forge.example/x.git"], options={"maxParallel": 2})
    keys = {request.headers["Idempotency-Key"] for request in gateway.requests}
    assert len(gateway.requests) == 3
    assert len(keys) == 1
    await client.submit("do it", ["https://forge.example/x.git"], idempotency_key="mine")
    assert gateway.requests[-1].headers["Idempotency-Key"] == "mine"
    assert gateway.bodies[0] == {
        "prompt": "do it",
        "kind": "code",
        "priority": 0,
        "repositories": [{"url": "https://forge.example/x.git"}],
        "options": {"maxParallel": 2},
    }


async def test_a_lone_surrogate_reaches_the_gateway_to_be_refused_there(client, gateway):
    await client.submit("\ud800", ["https://forge.example/x.git"])
    assert gateway.bodies[0]["prompt"] == "\ud800"


async def test_a_cancel_is_not_repeated(client, gateway):
    job = gateway.add(make_job())
    gateway.faults = [problem(503, "Unavailable", "not now")]
    with pytest.raises(UnavailableError, match="not now"):
        await client.cancel_job(job.id)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequestError),
        (401, UnauthorizedError),
        (403, UnauthorizedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, InvalidRequestError),
        (418, ApiError),
        (500, ApiError),
    ],
)
async def test_a_problem_document_becomes_the_error_of_its_kind(client, gateway, status, error):
    fields = [{"field": "repositories[0].url", "message": "must not be blank"}]
    gateway.faults = [problem(status, "Wrong", "look again", errors=fields)]
    with pytest.raises(ApiError, match="look again") as raised:
        await client.job(uuid4())
    assert type(raised.value) is error
    assert raised.value.status == status
    assert raised.value.problem.errors[0].field == "repositories[0].url"


async def test_an_invalid_request_names_its_fields(client, gateway):
    fields = [{"field": "prompt", "message": "must not be blank"}]
    gateway.faults = [problem(400, "Invalid request", "1 field is wrong", errors=fields)]
    with pytest.raises(InvalidRequestError, match="prompt: must not be blank"):
        await client.submit("", [])


async def test_an_answer_that_is_no_problem_document_is_still_told(client, gateway):
    gateway.faults = [web.Response(status=500, text="<h1>Oops</h1>")]
    with pytest.raises(ApiError, match="Oops"):
        await client.job(uuid4())


async def test_what_is_no_quarterdeck_gateway_is_said_so(client, gateway):
    gateway.faults = [web.json_response({"hello": "world"})]
    with pytest.raises(ProtocolError, match="is no Job"):
        await client.job(uuid4())


async def test_pages_are_read_to_the_end_or_to_the_limit(client, gateway):
    for _ in range(450):
        gateway.add(make_job())
    expected = [job.id for job in gateway.jobs]
    assert [job.id async for job in client.jobs()] == expected
    assert len(gateway.requests) == 3
    assert [job.id async for job in client.jobs(limit=250)] == expected[:250]


async def test_a_diff_is_the_gateways_own_bytes(client, gateway):
    job = make_job()
    run = make_run(job)
    gateway.add(job, run)
    assert await client.diff(run.id) == DIFF


async def test_nothing_listening_is_unavailable(unused_address):
    async with Client(unused_address, API_KEY, patience=timedelta(seconds=0.2)) as client:
        with pytest.raises(UnavailableError, match="No answer from the gateway"):
            await client.job(uuid4())


@pytest.fixture
def unused_address() -> str:
    with running(FakeGateway()) as served:
        return served.address


async def test_an_address_that_is_no_url_is_refused():
    with pytest.raises(NotConfiguredError, match="localhost:8080"):
        Client("localhost:8080")
