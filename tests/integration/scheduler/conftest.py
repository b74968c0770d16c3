"""The domain's fixtures, and a connection to a nats-server that the test may kill."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.runtime.jetstream import Bus
from services.scheduler.reconcile import Reconciler, UseCases
from tests.integration.jobs.conftest import database, domain, domain_database_url
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until

__all__ = ["database", "domain", "domain_database_url"]

Restart = Callable[..., Awaitable[None]]


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(nats_url, name="test")
    await bus.start(wait=timedelta(seconds=20))
    await until(lambda: bus.is_connected)
    yield bus
    await bus.close()


@pytest.fixture
def reconciler(domain: Domain, bus: Bus) -> Reconciler:
    cases = UseCases(domain.admitting, domain.scheduling, domain.cancelling, domain.publishing, domain.messaging)
    return Reconciler(cases, bus, on_admissible=lambda: None)


@pytest.fixture
def restart(nats_server: EmbeddedServers, bus: Bus) -> Restart:
    """SIGKILL the server, wipe its store where asked to, start it again, wait until ``bus`` is back."""

    async def again(*, wiped: bool) -> None:
        await nats_server.kill("nats")
        await until(lambda: not bus.is_connected)
        if wiped:
            shutil.rmtree(nats_server.folder / "nats")
        await nats_server.start("nats")
        await until(lambda: bus.is_connected)

    return again
