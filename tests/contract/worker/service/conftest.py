"""One gateway for all tests of the Worker's service: each leaves it as new, and calls it from an address of its own."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.gateway.dialects.dialect import Dialect
from services.gateway.dialects.worker import NAME, worker
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.dialects.worker.settings import WorkerSettings
from services.jobs.forge_apps import ForgeApps, NewApp
from services.runtime.grpc import NO_TLS, listen, make_server
from services.runtime.jetstream import Bus
from services.runtime.sealing import Sealer
from tests.contract.serving import fleet_of, running_api
from tests.contract.worker.conftest import SECRET_KEY, Worker
from tests.contract.worker.stage import Stage
from tests.integration.conftest import drop_database, execute
from tests.integration.gateway.vcs_nodes import TOKEN, Plan, Refusal, StandIn, register
from tests.integration.jobs.domain import Domain

APP = NewApp(
    app_id=2601422,
    slug="quarterdeck-abc",
    name="Quarterdeck abc",
    owner="username",
    url="https://github.example/apps/quarterdeck-abc",
    private_key="a private key",
    client_secret="a client secret",
    webhook_secret="a webhook secret",
)
KEY = "sk-ant-a-key-for-tests"
PROXY = "127.0.0.1"
_NO_FORGE = {"ListRepositories": Refusal(grpc.StatusCode.FAILED_PRECONDITION, "no forge is configured")}
_LEFT = ("forge_apps", "forge_installations", "client_settings", "webhook_deliveries", "spending", "nodes")
_ADDRESSES = (f"198.51.{high}.{low}" for high, low in itertools.product(range(100), range(1, 250)))


class Forge(StandIn):
    async def SetUpApp(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto names it
        info = vcs_pb2.AppInfo(app_id=APP.app_id, slug=APP.slug, name=APP.name, owner=APP.owner, url=APP.url)
        return await self._single("SetUpApp", request, context, info)


@dataclass
class Service:
    """``api``: as one client that nobody else is. ``plan``: what the vcs node does."""

    api: httpx.AsyncClient
    worker: Worker
    domain: Domain
    plan: Plan

    async def store_app(self) -> None:
        """An App that is installed for five repositories."""
        apps = ForgeApps(self.domain.database, Sealer(SECRET_KEY))
        await apps.store(APP)
        names = [f"username/{number}" for number in range(5)]
        await apps.record_installation(789012, app_id=APP.app_id, account="username", repositories=names)

    async def store_key(self) -> None:
        answer = await self.api.post("/claude-setup", json={"anthropicApiKey": KEY})
        assert answer.status_code == 200, answer.text

    async def use_up(self, *, tokens: int = 0, usd: float = 0) -> None:
        """Have the API's client use so much today."""
        statement = "INSERT INTO spending (client_id, day, tokens, microusd) VALUES ($1, $2, $3, $4)"
        today = datetime.now(UTC).date()
        await self.domain.execute(statement, self.domain.client.id, today, tokens, int(usd * 1_000_000))

    async def tell_agents(self, *names: str) -> None:
        """Agents that live all through the test, the first the longest."""
        for number, name in enumerate(names):
            await self.domain.execute(
                "INSERT INTO nodes (name, kind, capacity, started_at, seen_at) VALUES "
                "($1, 'agent', 4, now() + $2 * interval '1 second', now() + interval '1 hour')",
                name,
                number,
            )


@dataclass
class ForgeNode:
    """A vcs node, real on the wire; unless a test says otherwise it has no forge, and lists no repositories."""

    address: str
    plan: Plan

    def reset(self) -> None:
        self.plan.refusals = dict(_NO_FORGE)
        self.plan.answers.clear()
        self.plan.asked.clear()


@asynccontextmanager
async def forge_node() -> AsyncIterator[ForgeNode]:
    plan, server = Plan(), make_server(TOKEN)
    vcs_pb2_grpc.add_VcsServicer_to_server(Forge(plan), server)  # type: ignore[abstract]  # in the stubs alone
    serving = grpc_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(serving, server)
    await serving.set("quarterdeck.v1.Vcs", health_pb2.HealthCheckResponse.SERVING)
    address = listen(server, "127.0.0.1:0", NO_TLS)
    await server.start()
    try:
        yield ForgeNode(address, plan)
    finally:
        await server.stop(0)


@pytest.fixture(scope="session")
async def running_service(servers: EmbeddedServers, template_database: str) -> AsyncIterator[tuple[Worker, ForgeNode]]:
    name = "test_worker_service"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    url = servers.postgres.database_url(name)
    async with AsyncExitStack() as stack:
        # Ready by its health, the one answer that is not limited.
        api = await stack.enter_async_context(
            running_api(url, servers.nats_url, _dialect, secret_key=SECRET_KEY, vcs_token=TOKEN)
        )
        fleet = await stack.enter_async_context(fleet_of(url, NAME))
        bus = Bus(servers.nats_url, name="service test")
        await bus.start(wait=timedelta(seconds=20))
        stack.push_async_callback(bus.close)
        yield Worker(api, Stage(fleet, bus)), await stack.enter_async_context(forge_node())
    await drop_database(servers, name)


def _dialect(port: int) -> Dialect:
    settings = WorkerSettings(port=port, max_sessions=2, github_server_url="https://github.example")
    dialect = worker(settings, ServiceSettings(trusted_proxies=PROXY), PROXY)
    assert dialect is not None
    return dialect


@pytest.fixture
async def service(running_service: tuple[Worker, ForgeNode]) -> AsyncIterator[Service]:
    worker, forge = running_service
    domain = worker.stage.fleet.domain
    for table in _LEFT:
        await domain.execute(f"DELETE FROM {table}")
    await domain.execute("UPDATE jobs SET metadata = '{}'")  # nobody's sessions any more
    forge.reset()
    await register(domain.database, "vcs-1", forge.address)
    headers = {"X-Forwarded-For": next(_ADDRESSES)}
    async with httpx.AsyncClient(
        base_url=worker.api.address, headers=headers, timeout=httpx.Timeout(30), trust_env=False
    ) as api:
        yield Service(api, worker, domain, forge.plan)
