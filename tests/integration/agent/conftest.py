"""An agent in this process over real servers: Postgres, NATS, a vcs over gRPC, and a model that a test scripts."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.stack.ports import free_ports
from services.jobs import scheduling
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from services.vcs.__main__ import Vcs
from services.vcs.settings import VcsSettings
from tests.integration.agent.agents import Agent, StartAgent
from tests.integration.agent.fleet import DEADLINE_SECONDS, VCS_TOKEN, Fleet, make_repository
from tests.integration.agent.messages_server import MessagesServer
from tests.integration.jobs.domain import Domain

StartVcs = Callable[[Path], Awaitable[str]]
"""Gives the address."""
SECRET_KEY = base64.urlsafe_b64encode(b"k" * 32).decode()
"""Of every service that a test gives one to."""


@pytest.fixture
async def model() -> AsyncIterator[MessagesServer]:
    async with MessagesServer() as server:
        yield server


@pytest.fixture
async def domain(database_url: str) -> AsyncIterator[Domain]:
    database = Database(database_url, size=6, name="test")
    domain = Domain(database)
    domain.client = await domain.new_client("tester")
    yield domain
    await database.close()


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(nats_url, name="test")
    await bus.start(wait=timedelta(seconds=DEADLINE_SECONDS))
    yield bus
    await bus.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository with one commit: f.txt, which says a."""
    return make_repository(tmp_path, "origin")


@pytest.fixture
async def start_vcs(database_url: str, nats_url: str, bus: Bus, domain: Domain) -> AsyncIterator[StartVcs]:
    """Start nodes that serve worktrees beneath a folder and publish nothing by themselves; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(root: Path) -> str:
            (port,) = free_ports(1)
            address = f"127.0.0.1:{port}"
            names = {"DATABASE_URL": database_url, "NATS_URL": nats_url, "vcs_token": VCS_TOKEN, "vcs_listen": address}
            told = {"vcs_root": root, "allow_local_repositories": True, "secret_key": SECRET_KEY}
            settings = VcsSettings.model_validate({**names, **told})
            settings.vcs_root.mkdir()
            vcs = Vcs(settings, domain.database, bus)
            await vcs.listen()
            stack.push_async_callback(vcs.close)
            stack.push_async_callback(vcs.server.stop)
            return address

        yield start


@pytest.fixture
async def vcs_address(start_vcs: StartVcs, tmp_path: Path) -> str:
    return await start_vcs(tmp_path / "vcs")


@pytest.fixture
def fleet(
    database_url: str,
    nats_url: str,
    domain: Domain,
    bus: Bus,
    model: MessagesServer,
    vcs_address: str,
    repository: Path,
    tmp_path: Path,
) -> Fleet:
    return Fleet(database_url, nats_url, domain, bus, model, vcs_address, tmp_path / "vcs", repository)


@pytest.fixture
async def start_agent(fleet: Fleet) -> AsyncIterator[StartAgent]:
    """Start agents, with the arguments of ``Agent``, each until it has places; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(*, has_places: bool = True, **replaced: Any) -> Agent:
            agent = Agent(fleet, **replaced)
            agent.start()
            stack.push_async_callback(agent.stop)
            if has_places:
                await fleet.until(agent.has_places)
            return agent

        yield start


@pytest.fixture
def postgres_is_up_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing expires until a lease after Postgres has started: let that be over."""
    monkeypatch.setattr(scheduling, "LEASE", timedelta(milliseconds=1))
