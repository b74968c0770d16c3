"""How the gateway reaches vcs nodes: with mutual TLS, over a Unix socket, and not where one side alone has TLS."""

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

from quarterdeck.stack.environment import base_environment
from services.runtime.grpc import GrpcSecurity
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import StartGateway, is_healthy
from tests.integration.gateway.vcs_nodes import TOKEN, vcs_node
from tests.integration.runtime.certificates import Authority
from tests.integration.waiting import until_async

DISCOVER = "/v1/repositories/discover"
EXIT_SECONDS = 30


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


async def started(start: StartGateway, *urls: str, authority: Authority | None = None) -> httpx.AsyncClient:
    files: dict[str, Path] = {}
    if authority is not None:
        certificate, key = authority.issue("gateway")
        files = {"grpc_ca": authority.file, "grpc_certificate": certificate, "grpc_key": key}
    client = await start(*urls, vcs_token=TOKEN, **files)
    await until_async(lambda: is_healthy(client))
    return client


async def status_of(client: httpx.AsyncClient, database: Database, security: GrpcSecurity) -> int:
    async with vcs_node(database, security=security):
        answer = await client.get(DISCOVER)
    async with database.connection() as connection:
        await connection.execute("DELETE FROM nodes")
    return answer.status_code


async def test_both_sides_prove_themselves_where_both_have_certificates(
    database_url: str, nats_url: str, database: Database, start_gateway: StartGateway, authority: Authority
) -> None:
    secured = await started(start_gateway, database_url, nats_url, authority=authority)
    plain = await started(start_gateway, database_url, nats_url)
    stranger = Authority(authority.file.parent.parent / "stranger")

    assert await status_of(secured, database, authority.security("vcs")) == 200
    assert await status_of(secured, database, stranger.security("vcs")) == 503
    assert await status_of(secured, database, GrpcSecurity()) == 503
    assert await status_of(plain, database, authority.security("vcs-again")) == 503


async def test_a_node_of_this_machine_is_reached_over_its_socket(
    database_url: str, nats_url: str, database: Database, start_gateway: StartGateway, tmp_path: Path
) -> None:
    client = await started(start_gateway, database_url, nats_url)
    async with vcs_node(database, address=f"unix:{tmp_path / 'run' / 'vcs.sock'}") as plan:
        assert (await client.get(DISCOVER)).status_code == 200
    assert len(plan.asked) == 1


async def test_a_certificate_that_cannot_be_used_is_named_at_the_start(tmp_path: Path) -> None:
    environment = {
        "DATABASE_URL": "postgresql://127.0.0.1:1/x",
        "NATS_URL": "nats://127.0.0.1:1",
        "QUARTERDECK_GRPC_CA": str(tmp_path / "missing.pem"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway"),
        env=base_environment() | environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), EXIT_SECONDS)
    assert (process.returncode, "QUARTERDECK_GRPC_CA: " in errors.decode()) == (2, True)
    assert "Traceback" not in errors.decode()
