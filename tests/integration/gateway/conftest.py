"""A real gateway on a real port, and a stand-in for the scheduler that makes its events happen."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from services.contracts.subjects import event as event_subject
from services.contracts.words import EventKind
from services.gateway.__main__ import serve
from services.gateway.settings import GatewaySettings
from services.jobs.eventlog import encode_event
from services.jobs.outbox import Outbox
from services.jobs.submission import Submissions
from services.jobs.unit import Draft, Rung, Unit, Units
from services.runtime.jetstream import Bus, Outgoing
from services.runtime.postgres import Database
from services.scheduler.publication import EventPublisher
from tests.integration.conftest import drop_database, execute
from tests.integration.waiting import until_async

KEY = "qd_test_key"
OTHER_KEY = "qd_other_key"
STOP_SECONDS = 10.0
TLS = ssl.create_default_context()
"""Each client would load the authorities anew, which takes longer than many a test, and none of these uses them."""

StartGateway = Callable[..., Awaitable[httpx.AsyncClient]]


def client_of(port: int, key: str | None = KEY) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=httpx.Timeout(15), trust_env=False, verify=TLS
    )


@asynccontextmanager
async def running_gateway(database_url: str, nats_url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway as its process runs it, in this loop; what it answers `/health` is not waited for."""
    port = int(settings.pop("port", 0)) or free_ports(1)[0]
    values: dict[str, Any] = {"database_url": database_url, "nats_url": nats_url, "port": port, "api_key": KEY}
    values |= {"drain_seconds": 2.0, "health_address": None} | settings
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(GatewaySettings(**values), stop))
    async with client_of(port) as client:
        try:
            await until_async(lambda: _listens(client, serving))
            yield client
        finally:
            stop.set()
            await asyncio.wait_for(serving, STOP_SECONDS)


async def _listens(client: httpx.AsyncClient, serving: asyncio.Task[None]) -> bool:
    if serving.done():
        serving.result()
    try:
        await client.get("/nowhere")
    except httpx.TransportError:
        return False
    return True


@pytest.fixture
async def start_gateway() -> AsyncIterator[StartGateway]:
    """Start gateways by URLs of one's choice; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(database_url: str, nats_url: str, **settings: Any) -> httpx.AsyncClient:
            return await stack.enter_async_context(running_gateway(database_url, nats_url, **settings))

        yield start


async def is_healthy(client: httpx.AsyncClient) -> bool:
    answer = await client.get("/health")
    return answer.status_code == 200 and answer.json()["status"] == "healthy"


@pytest.fixture
async def gateway(database_url: str, nats_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a healthy gateway, with its key."""
    async with running_gateway(database_url, nats_url) as client:
        await until_async(lambda: is_healthy(client))
        yield client


@pytest.fixture(scope="session")
async def shared_gateway(servers: EmbeddedServers, template_database: str) -> AsyncIterator[httpx.AsyncClient]:
    """One gateway for all the tests that are only refused, or leave nothing that another would see."""
    name = "test_shared_gateway"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    async with running_gateway(servers.postgres.database_url(name), servers.nats_url) as client:
        await until_async(lambda: is_healthy(client))
        yield client
    await drop_database(servers, name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, size=2, name="test")
    yield database
    await database.close()


@pytest.fixture
async def other_client(gateway: httpx.AsyncClient, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """The same gateway, used with the key of another tenant."""
    await Submissions(Units(database, ring=_silent)).ensure_client("other", OTHER_KEY)
    async with client_of(gateway.base_url.port or 0, OTHER_KEY) as client:
        yield client


async def _silent(_: Rung) -> None:
    return


class Scheduler:
    """What makes events: it appends to jobs' logs, and publishes when told, as the real one would."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._units = Units(database, ring=_silent)
        self._publisher = EventPublisher(Outbox(database), bus)
        self.bus = bus

    async def tell(self, job_id: str, *messages: str, published: bool = True) -> None:
        """Append log lines to the job's events."""

        async def work(unit: Unit) -> None:
            for message in messages:
                unit.tell(UUID(job_id), Draft(EventKind.LOG, {"message": message}))

        await self._units.run([UUID(job_id)], work)
        if published:
            await self.publish()

    async def finish(self, job_id: str, *, published: bool = True) -> None:
        async def work(unit: Unit) -> None:
            unit.count(UUID(job_id), started=1, completed=1)

        await self._units.run([UUID(job_id)], work)
        if published:
            await self.publish()

    async def publish(self) -> None:
        await self._publisher.run_once()

    async def delta(self, job_id: str, text: str) -> None:
        event_id = str(uuid4())
        data = encode_event(
            event_id=event_id,
            job_id=job_id,
            run_id="",
            number=0,
            attempt=1,
            kind=EventKind.DELTA,
            time=datetime.now(UTC),
            data={"text": text},
        )
        await self.bus.publish(Outgoing(event_subject(job_id, "", EventKind.DELTA), data, event_id))


@pytest.fixture
async def scheduler(database: Database, nats_url: str) -> AsyncIterator[Scheduler]:
    bus = Bus(nats_url, name="test")
    await bus.start(wait=timedelta(seconds=5))
    yield Scheduler(database, bus)
    await bus.close()


@pytest.fixture
async def job(gateway: httpx.AsyncClient, scheduler: Scheduler) -> str:
    """A submitted job whose first event is published."""
    answer = await gateway.post("/v1/jobs", json={"prompt": "say hello", "kind": "task"})
    assert answer.status_code == 201, answer.text
    await scheduler.publish()
    return str(answer.json()["id"])
