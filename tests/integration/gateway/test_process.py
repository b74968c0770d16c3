"""The gateway as a process: how it ends, and what it says when it cannot begin."""

import asyncio
import sys
from asyncio.subprocess import Process

import httpx

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.ports import free_ports
from tests.integration.gateway.conftest import KEY, client_of, is_healthy
from tests.integration.gateway.watching import watching
from tests.integration.waiting import until_async

END_SECONDS = 10


async def start(database_url: str, nats_url: str, port: int | str) -> Process:
    environment = {
        "DATABASE_URL": database_url,
        "NATS_URL": nats_url,
        "QUARTERDECK_PORT": str(port),
        "QUARTERDECK_API_KEY": KEY,
        "QUARTERDECK_DRAIN_SECONDS": "0.8",
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway"),
        env=base_environment() | environment,
        stderr=asyncio.subprocess.PIPE,
    )


async def output_of(process: Process) -> str:
    _, errors = await asyncio.wait_for(process.communicate(), END_SECONDS)
    return errors.decode()


async def answers_healthy(client: httpx.AsyncClient) -> bool:
    try:
        return await is_healthy(client)
    except httpx.TransportError:
        return False


async def test_sigterm_ends_streams_cleanly_and_the_process_soon(database_url: str, nats_url: str):
    (port,) = free_ports(1)
    process = await start(database_url, nats_url, port)
    async with client_of(port) as client:
        await until_async(lambda: answers_healthy(client))
        job = (await client.post("/v1/jobs", json={"prompt": "x", "kind": "task"})).json()["id"]
        async with watching(client, job) as watcher:
            assert await watcher.take(1) == ["job.submitted"]
            process.terminate()
            assert await watcher.rest() == []
        output = await output_of(process)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert KEY not in output


async def test_a_port_that_is_taken_is_said(database_url: str, nats_url: str):
    taken = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with taken:
        process = await start(database_url, nats_url, taken.sockets[0].getsockname()[1])
        output = await output_of(process)
    assert process.returncode == 1
    assert "address already in use" in output


async def test_a_wrong_setting_is_named(database_url: str, nats_url: str):
    process = await start(database_url, nats_url, "many")
    assert "QUARTERDECK_PORT" in await output_of(process)
    assert process.returncode == 2
