"""The gRPC side as a server: who is let in, what it says while something is away, and how it stops."""

import asyncio
import socket
import sys
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import BaseModel

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.ports import free_ports
from services.contracts import rest
from services.contracts.v1 import jobs_pb2 as pb
from services.gateway.query import JobsQuery, PageQuery
from services.gateway.rpc import calls
from services.jobs.reading import Reading
from tests.integration.gateway.conftest import KEY, StartGateway, is_healthy, running_gateway
from tests.integration.gateway.rpc.conftest import DEADLINE_SECONDS, Stub, refusal, stub_at
from tests.integration.waiting import until_async

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
END_SECONDS = 20

MIRRORS: list[tuple[Any, type[BaseModel], set[str]]] = [
    (pb.SubmitJobRequest, rest.JobRequest, {"idempotency_key"}),
    (pb.RepositoryRequest, rest.RepositoryRequest, set()),
    (pb.JobOptions, rest.JobOptions, set()),
    (pb.RetryJobRequest, rest.RetryRequest, {"job_id", "idempotency_key"}),
    (pb.SendMessageRequest, rest.MessageRequest, {"job_id"}),
    (pb.CompleteJobRequest, rest.CompleteRequest, {"job_id"}),
    (pb.ListJobsRequest, JobsQuery, set()),
    (pb.ListRunsRequest, PageQuery, {"job_id"}),
    (pb.Job, rest.Job, set()),
    (pb.JobPage, rest.JobPage, set()),
    (pb.RunCounts, rest.RunCounts, set()),
    (pb.Run, rest.Run, set()),
    (pb.RunPage, rest.RunPage, set()),
    (pb.RunUsage, rest.RunUsage, set()),
    (pb.Changeset, rest.Changeset, set()),
    (pb.ChangedFile, rest.FileStat, set()),
    (pb.Message, rest.Message, set()),
]


@pytest.mark.parametrize(("message", "model", "besides"), MIRRORS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_message_has_the_fields_of_its_rest_model(message: Any, model: type[BaseModel], besides: set[str]):
    assert {field.name for field in message.DESCRIPTOR.fields} == set(model.model_fields) | besides


async def test_only_who_has_a_key_is_served(stub: Stub):
    wrong: dict[str, tuple[tuple[str, str], ...]] = {
        "no key": (),
        "not known": (("authorization", "Bearer nonsense"),),
        "another scheme": (("authorization", f"Basic {KEY}"),),
        "empty": (("authorization", "Bearer "),),
    }
    for case, metadata in wrong.items():
        code, problem = await refusal(stub.ListJobs(pb.ListJobsRequest(), metadata=metadata))
        assert (code, problem["status"]) == (UNAUTHENTICATED, 401), case
        assert KEY not in str(problem)
        watch = stub.WatchJob(pb.WatchJobRequest(job_id=str(uuid4())), metadata=metadata)
        assert (await refusal(watch.read()))[0] is UNAUTHENTICATED, case
    assert await stub.ListJobs(pb.ListJobsRequest()) == pb.JobPage()


async def test_health_needs_no_key(gateway: httpx.AsyncClient, address: str):
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "quarterdeck.v1.Jobs"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health.Check(request, timeout=DEADLINE_SECONDS)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_without_postgres_calls_are_told_to_come_back(start_gateway: StartGateway, nats_url: str, address: str):
    nowhere = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/nothing"
    await start_gateway(nowhere, nats_url, grpc_listen=address)
    async with stub_at(address) as stub:
        code, problem = await refusal(stub.ListJobs(pb.ListJobsRequest()))
        assert (code, problem["status"]) == (grpc.StatusCode.UNAVAILABLE, 503)
        assert "database" in problem["detail"]


class Held:
    """Stands in for a read that takes its time."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()

    async def runs(self, *_: Any, **__: Any) -> rest.RunPage:
        self.begun.set()
        try:
            await self.go_on.wait()
        finally:
            self.ended.set()
        return rest.RunPage(items=[], next_cursor="held")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held()
    monkeypatch.setattr(Reading, "runs", held.runs)
    return held


def list_runs() -> pb.ListRunsRequest:
    return pb.ListRunsRequest(job_id=str(uuid4()))


async def ends(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), END_SECONDS)


async def test_a_clients_deadline_ends_the_work(stub: Stub, held: Held):
    code, _ = await refusal(stub.ListRuns(list_runs(), timeout=0.5))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await ends(held.ended)


async def test_a_client_that_sets_no_deadline_gets_one(stub: Stub, held: Held, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calls, "CALL_SECONDS", 0.2)
    code, problem = await refusal(stub.ListRuns(list_runs(), timeout=None))
    assert (code, problem["status"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, 504)
    await ends(held.ended)


async def test_a_call_under_way_is_finished_before_the_process_ends(
    database_url: str, nats_url: str, address: str, held: Held
):
    async with stub_at(address) as stub, AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            running_gateway(database_url, nats_url, grpc_listen=address, drain_seconds=8.0)
        )
        # Before its pool is connected the gateway tells a caller to come back, and the read below never begins.
        await until_async(lambda: is_healthy(client))
        call = stub.ListRuns(list_runs())
        await ends(held.begun)
        stopping = asyncio.create_task(stack.aclose())
        await until_refused(address)
        assert not stopping.done()
        held.go_on.set()
        assert (await call).next_cursor == "held"
        await asyncio.wait_for(stopping, END_SECONDS)


async def until_refused(address: str) -> None:
    """A call that comes in at the very moment of the stop is cancelled by gRPC itself, later ones are refused."""
    async with asyncio.timeout(END_SECONDS), stub_at(address) as stub:
        code, _ = await refusal(call_for_ever(stub))
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def call_for_ever(stub: Stub) -> None:
    while True:
        await stub.ListJobs(pb.ListJobsRequest())


async def start(database_url: str, nats_url: str, grpc_listen: str) -> asyncio.subprocess.Process:
    environment = {
        "DATABASE_URL": database_url,
        "NATS_URL": nats_url,
        "QUARTERDECK_PORT": str(free_ports(1)[0]),
        "QUARTERDECK_API_KEY": KEY,
        "QUARTERDECK_GRPC_LISTEN": grpc_listen,
        "QUARTERDECK_DRAIN_SECONDS": "5",
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway"),
        env=base_environment() | environment,
        stderr=asyncio.subprocess.PIPE,
    )


async def output_of(process: asyncio.subprocess.Process) -> str:
    _, errors = await asyncio.wait_for(process.communicate(), END_SECONDS)
    return errors.decode()


async def test_the_process_ends_its_streams_and_itself_at_sigterm(database_url: str, nats_url: str, address: str):
    process = await start(database_url, nats_url, address)
    async with stub_at(address) as stub:
        submitted = await stub.SubmitJob(pb.SubmitJobRequest(prompt="x", kind="task"), wait_for_ready=True)
        watch = stub.WatchJob(pb.WatchJobRequest(job_id=submitted.job.id))
        assert (await watch.read()).event.kind == "job.submitted"
        process.terminate()
        code, problem = await refusal(watch.read())
        assert (code, "last id" in problem["detail"]) == (grpc.StatusCode.UNAVAILABLE, True)
    output = await output_of(process)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert KEY not in output


async def test_an_address_that_is_taken_is_named(database_url: str, nats_url: str, address: str):
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        process = await start(database_url, nats_url, address)
        output = await output_of(process)
    assert f"QUARTERDECK_GRPC_LISTEN: cannot listen on {address}" in output
    assert "Traceback" not in output
    assert process.returncode == 2


async def test_an_address_that_is_none_is_named(database_url: str, nats_url: str):
    process = await start(database_url, nats_url, "nonsense")
    assert "QUARTERDECK_GRPC_LISTEN" in await output_of(process)
    assert process.returncode == 2
