"""Postgres or NATS away: said plainly, and over as soon as they are back."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from tests.integration.gateway.conftest import StartGateway, is_healthy
from tests.integration.waiting import until_async

TASK = {"prompt": "say hello", "kind": "task"}


class Proxy:
    """A TCP proxy to Postgres, so that it can be away for one gateway alone."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        (self.port,) = free_ports(1)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        await asyncio.gather(self._copy(reader, other_writer), self._copy(other_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(urlsplit(database_url).port or 5432)
    yield proxy
    await proxy.close()


def through(proxy: Proxy, url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"))


async def accepts(client: httpx.AsyncClient) -> bool:
    return (await client.post("/v1/jobs", json=TASK)).status_code == 201


async def test_without_postgres_requests_are_told_to_come_back(
    start_gateway: StartGateway, database_url: str, nats_url: str, proxy: Proxy
):
    await proxy.open()
    gateway = await start_gateway(through(proxy, database_url), nats_url)
    await until_async(lambda: is_healthy(gateway))
    assert await accepts(gateway)
    await proxy.close()
    for answer in (await gateway.post("/v1/jobs", json=TASK), await gateway.get("/v1/jobs")):
        assert answer.status_code == 503, answer.text
        assert answer.headers["Retry-After"] == "2"
        assert "database" in answer.json()["detail"]
    health = await gateway.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "degraded")
    await proxy.open()
    await until_async(lambda: accepts(gateway))
    assert await is_healthy(gateway)


async def test_a_gateway_that_starts_before_postgres_never_calls_its_key_unknown(
    start_gateway: StartGateway, database_url: str, nats_url: str, proxy: Proxy
):
    gateway = await start_gateway(through(proxy, database_url), nats_url)
    assert (await gateway.get("/v1/jobs")).status_code == 503
    await proxy.open()
    statuses = set()

    async def answers() -> bool:
        statuses.add((await gateway.get("/v1/jobs")).status_code)
        return 200 in statuses

    await until_async(answers)
    assert statuses <= {200, 503}


async def test_without_nats_jobs_are_accepted(gateway: httpx.AsyncClient, nats_server: EmbeddedServers):
    await nats_server.kill("nats")
    assert await accepts(gateway)
    health = await gateway.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    await nats_server.start("nats")
    await until_async(lambda: is_healthy(gateway))
