"""A server whose subscribers are tried: the embedded one, or one with the configuration of deploy/."""

import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.nats import binary
from quarterdeck.stack.ports import free_ports
from quarterdeck.stack.probes import listening
from quarterdeck.stack.processes import ChildProcess, ProcessSpec
from services.jobs.outbox import Outbox
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from services.scheduler.publication import EventPublisher
from tests.integration.jobs.conftest import database, domain, domain_database_url
from tests.integration.scheduler.conftest import bus
from tests.integration.waiting import until

__all__ = ["bus", "database", "domain", "domain_database_url"]

ROOT = Path(__file__).parents[3]
PASSWORD = "0test0"


@dataclass(frozen=True)
class Server:
    """``url``: of someone who may do anything where the services' streams are."""

    url: str
    subscriber_url: str


@pytest.fixture
def publisher(database: Database, bus: Bus) -> EventPublisher:
    return EventPublisher(Outbox(database), bus)


def deployed_configuration(folder: Path, port: int) -> Path:
    """deploy/nats.conf, but for its addresses and folder, and with one user more, who looks what became of things."""
    text = (ROOT / "deploy" / "nats.conf").read_text()
    for pattern, replacement in (
        (r'"0\.0\.0\.0:4222"', f'"127.0.0.1:{port}"'),
        (r"http: .*", ""),
        (r'"/data"', f'"{folder}/data"'),
        (r"users: \[", f"users: [\n{{user: onlooker, password: {PASSWORD}}}"),
    ):
        text, changes = re.subn(pattern, replacement, text, count=1)
        assert changes == 1, pattern
    path = folder / "nats.conf"
    path.write_text(text)
    return path


async def start_deployed(folder: Path, port: int) -> ChildProcess:
    names = re.findall(r"\$(NATS_\w+)", (ROOT / "deploy" / "nats.conf").read_text())
    spec = ProcessSpec(
        name="nats",
        command=(str(binary()), "-c", str(deployed_configuration(folder, port))),
        environment={"PATH": os.environ["PATH"]} | dict.fromkeys(names, PASSWORD),
        log=folder / "nats.log",
        folder=folder,
        probe=listening("127.0.0.1", port),
    )
    child = await ChildProcess.spawn(spec)
    await child.wait_ready()
    return child


@pytest.fixture(params=["embedded", "deployed"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """With the streams set up."""
    if request.param == "embedded":
        async with EmbeddedServers(servers=("nats",)) as running:
            await set_streams_up(running.nats_url)
            yield Server(running.nats_url, running.subscriber_nats_url)
        return
    (port,) = free_ports(1)
    child = await start_deployed(tmp_path, port)
    try:
        # By a service, with no more than a service may do there.
        await set_streams_up(f"nats://scheduler:{PASSWORD}@127.0.0.1:{port}")
        yield Server(*(f"nats://{user}:{PASSWORD}@127.0.0.1:{port}" for user in ("onlooker", "subscriber")))
    finally:
        await child.stop()


async def set_streams_up(url: str) -> None:
    bus = Bus(url, name="test")
    await bus.start(wait=timedelta(seconds=20))
    await until(lambda: bus.is_connected)
    await bus.close()
