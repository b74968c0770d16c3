"""The path of a run as processes over servers of the test's own, and links that the test may break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import httpx
import pytest

from quarterdeck.stack.ports import free_ports
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from tests.integration.faults.processes import API_KEY, GATEWAY, Service, Submitter
from tests.integration.faults.proxy import Link
from tests.integration.gateway.conftest import client_of, is_healthy
from tests.integration.jobs.conftest import postgres_is_up_long
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until, until_async

__all__ = ["postgres_is_up_long"]

StartService = Callable[..., Awaitable[Service]]
"""`start(module, *, failpoints, **variables)`: what is not said of its environment are the test's servers."""
BUS_SECONDS = 20
CLOSE_SECONDS = 30


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's own database, without a broken link in between."""
    database = Database(database_url, size=4, name="test")
    yield database
    await database.close()


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(nats_url, name="test")
    await bus.start(wait=timedelta(seconds=BUS_SECONDS))
    await until(lambda: bus.is_connected)
    yield bus
    await bus.close()


@pytest.fixture
async def domain(database: Database) -> Domain:
    domain = Domain(database)
    domain.client = await domain.new_client("tester")
    return domain


@pytest.fixture
async def postgres_link(database_url: str) -> AsyncIterator[Link]:
    async with Link(database_url) as link:
        yield link


@pytest.fixture
async def nats_link(nats_url: str) -> AsyncIterator[Link]:
    async with Link(nats_url) as link:
        yield link


@pytest.fixture
async def linked_database(postgres_link: Link) -> AsyncIterator[Database]:
    """Warm, so that the stall meets a connection that is open."""
    database = Database(postgres_link.url, size=2, name="linked")
    assert await database.check() == "ok"
    yield database
    await asyncio.wait_for(database.close(), CLOSE_SECONDS)


@pytest.fixture
async def linked_bus(nats_link: Link) -> AsyncIterator[Bus]:
    bus = Bus(nats_link.url, name="linked")
    await bus.start(wait=timedelta(seconds=BUS_SECONDS))
    await until(lambda: bus.is_connected)
    yield bus
    await asyncio.wait_for(bus.close(), CLOSE_SECONDS)


@pytest.fixture
async def start(database_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[StartService]:
    """Start services as processes; they end with the test."""
    numbers = count(1)
    async with AsyncExitStack() as stack:

        async def start_one(module: str, *, failpoints: tuple[str, ...] = (), **variables: str) -> Service:
            log = tmp_path / f"{module}-{next(numbers)}.log"
            environment = {"DATABASE_URL": database_url, "NATS_URL": nats_url} | variables
            service = await Service.start(module, log, environment, failpoints=failpoints)
            stack.push_async_callback(service.stop)
            return service

        yield start_one


@dataclass
class GatewayProcess:
    service: Service
    client: httpx.AsyncClient

    async def is_healthy(self) -> bool:
        try:
            return await is_healthy(self.client)
        except httpx.TransportError:
            return False

    async def until_healthy(self) -> None:
        await until_async(self.is_healthy)


StartGateway = Callable[..., Awaitable[GatewayProcess]]


@pytest.fixture
async def start_gateway(start: StartService) -> AsyncIterator[StartGateway]:
    """Start gateways as ``start`` does; each with a client that has its key."""
    async with AsyncExitStack() as stack:

        async def start_one(*, failpoints: tuple[str, ...] = (), **variables: str) -> GatewayProcess:
            (port,) = free_ports(1)
            settings = {"QUARTERDECK_PORT": str(port), "QUARTERDECK_API_KEY": API_KEY} | variables
            service = await start(GATEWAY, failpoints=failpoints, **settings)
            return GatewayProcess(service, await stack.enter_async_context(client_of(port, API_KEY)))

        yield start_one


@pytest.fixture
async def submitter(start_gateway: StartGateway) -> Submitter:
    """Of a gateway process that is healthy."""
    gateway = await start_gateway()
    await gateway.until_healthy()
    return Submitter(gateway.client)
