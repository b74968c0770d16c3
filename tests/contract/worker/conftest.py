"""A real gateway that serves the Worker API on a port of its own, and a stand-in for scheduler, agent and vcs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet

from quarterdeck.stack.embedded import EmbeddedServers
from services.gateway.dialects.dialect import Dialect
from services.gateway.dialects.worker import NAME, worker
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.dialects.worker.settings import WorkerSettings
from services.runtime.jetstream import Bus
from tests.contract.serving import Api, fleet_of, running_api
from tests.contract.worker.stage import Stage
from tests.integration.conftest import (
    database_url,
    drop_database,
    emptied_nats_url,
    execute,
    lending,
    lent_nats,
    nats_server,
    nats_url,
    servers,
    template_database,
)

__all__ = [
    "database_url",
    "emptied_nats_url",
    "lending",
    "lent_nats",
    "nats_server",
    "nats_url",
    "servers",
    "template_database",
]

SECRET_KEY = Fernet.generate_key().decode()
VCS_ROOT = "/var/lib/quarterdeck/vcs"
BASE_URL = "https://models.example"
"""An address of a model service that may be named."""
_MANY = {"requests_per_minute": 100_000, "requests_per_hour": 100_000, "requests_per_day": 100_000}


@dataclass
class Worker:
    """``api``: how it is reached. ``stage``: what carries its sessions out."""

    api: Api
    stage: Stage


@asynccontextmanager
async def running_worker(
    database_url: str,
    nats_url: str,
    *,
    settings: dict[str, Any] | None = None,
    service: dict[str, Any] | None = None,
    key: str | None = None,
    **gateway: Any,
) -> AsyncIterator[Worker]:
    """``settings``: of ``WorkerSettings``, ``service``: of ``ServiceSettings``. ``key``: what requests bear."""

    def make(port: int) -> Dialect:
        told: dict[str, Any] = {"max_sessions": 1_000, "vcs_root": VCS_ROOT} | (settings or {}) | {"port": port}
        dialect = worker(WorkerSettings(**told), ServiceSettings(**(_MANY | (service or {}))), "127.0.0.1")
        assert dialect is not None
        return dialect

    told: dict[str, Any] = {"secret_key": SECRET_KEY, "model_base_urls": BASE_URL} | gateway
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(
            running_api(database_url, nats_url, make, key=key, ready_path="/openapi.json", **told)
        )
        fleet = await stack.enter_async_context(fleet_of(database_url, NAME))
        bus = Bus(nats_url, name="test")
        await bus.start(wait=timedelta(seconds=20))
        stack.push_async_callback(bus.close)
        yield Worker(api, Stage(fleet, bus))


@pytest.fixture(scope="session")
async def shared_worker(servers: EmbeddedServers, template_database: str) -> AsyncIterator[Worker]:
    """One for all the tests that use sessions of their own, or are only refused."""
    name = "test_shared_worker"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    async with running_worker(servers.postgres.database_url(name), servers.nats_url) as running:
        yield running
    await drop_database(servers, name)
