"""The gateway with its gRPC side, a stub for each of two clients, and what a call was refused with."""

import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx
import pytest

from quarterdeck.stack.ports import free_ports
from services.contracts.v1 import jobs_pb2_grpc
from services.gateway.rpc.errors import PROBLEM_KEY
from services.runtime.grpc import bearer, make_channel
from tests.integration.gateway.conftest import KEY, OTHER_KEY, is_healthy, running_gateway
from tests.integration.waiting import until_async

DEADLINE_SECONDS = 30.0


class Stub:
    """The generated stub of one client: its key and a deadline go with every call."""

    def __init__(self, channel: grpc.aio.Channel, key: str | None) -> None:
        self._stub: jobs_pb2_grpc.JobsAsyncStub = jobs_pb2_grpc.JobsStub(channel)
        self._metadata = bearer(key) if key else ()

    def __getattr__(self, method: str) -> Any:
        def call(request: Any, **options: Any) -> Any:
            given = {"timeout": DEADLINE_SECONDS, "metadata": self._metadata}
            return getattr(self._stub, method)(request, **given | options)

        return call


@asynccontextmanager
async def stub_at(address: str, key: str | None = KEY) -> AsyncIterator[Stub]:
    async with make_channel(address) as channel:
        yield Stub(channel, key)


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """The status that ``call`` fails with, and its problem document."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return status_of(failed.value)


def status_of(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, dict[str, Any]]:
    trailing = dict(error.trailing_metadata())
    problem: dict[str, Any] = json.loads(trailing.get(PROBLEM_KEY, b"{}"))
    return error.code(), problem


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
async def gateway(database_url: str, nats_url: str, address: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the HTTP side of a healthy gateway that serves gRPC at ``address``."""
    async with running_gateway(database_url, nats_url, grpc_listen=address) as client:
        await until_async(lambda: is_healthy(client))
        yield client


@pytest.fixture
async def stub(gateway: httpx.AsyncClient, address: str) -> AsyncIterator[Stub]:
    async with stub_at(address) as stub:
        yield stub


@pytest.fixture
async def other_stub(other_client: httpx.AsyncClient, address: str) -> AsyncIterator[Stub]:
    """Of another tenant."""
    async with stub_at(address, OTHER_KEY) as stub:
        yield stub
