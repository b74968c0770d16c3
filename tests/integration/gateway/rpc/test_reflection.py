"""A tool that knows the address and a key alone: it learns the service by reflection, and submits and watches a job."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.integration.gateway.conftest import KEY, Scheduler

DEADLINE_SECONDS = 30.0
SERVICE = "quarterdeck.v1.Jobs"


class Tool:
    """Calls any method of a service by its name, with fields by theirs; blocks, so it belongs in a thread."""

    def __init__(self, channel: grpc.Channel, service: str) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        # A pool of its own: what this process has generated is not seen.
        self._service = DescriptorPool(self._database).FindServiceByName(service)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def methods(self) -> set[str]:
        return {method.name for method in self._service.methods}

    def call(self, name: str, **fields: Any) -> Any:
        """The answer of a method with one; an iterator over those of a stream."""
        method = self._service.methods_by_name[name]
        request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        opened = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        callable_ = opened(
            f"/{self._service.full_name}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return callable_(request(**fields), timeout=DEADLINE_SECONDS, metadata=(("authorization", f"Bearer {KEY}"),))


@contextmanager
def tool_at(address: str) -> Iterator[Tool]:
    with grpc.insecure_channel(address) as channel:
        yield Tool(channel, SERVICE)


def submit(address: str) -> tuple[str, str]:
    """The ids of a new job and its run."""
    with tool_at(address) as tool:
        submitted = tool.call("SubmitJob", prompt="say hello", kind="task", options={"max_turns": 7})
        assert submitted.job.options.max_turns == 7
        (run,) = tool.call("ListRuns", job_id=submitted.job.id).items
        return submitted.job.id, run.id


def watch(address: str, job_id: str) -> list[tuple[str, str]]:
    """The position and kind of each event until the end."""
    with tool_at(address) as tool:
        return [(each.position, each.event.kind) for each in tool.call("WatchJob", job_id=job_id)]


def resume(address: str, job_id: str, position: str) -> list[str]:
    with tool_at(address) as tool:
        watched = tool.call("WatchJob", job_id=job_id, last_position=position)
        return [each.event.WhichOneof("payload") for each in watched]


def look_around(address: str) -> tuple[set[str], set[str]]:
    with tool_at(address) as tool:
        return tool.services(), tool.methods()


async def test_what_is_served_is_told(gateway: httpx.AsyncClient, address: str):
    services, methods = await asyncio.to_thread(look_around, address)
    assert services == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert {"SubmitJob", "GetJob", "ListJobs", "CancelJob", "RetryJob", "SendMessage", "WatchJob"} <= methods


async def test_a_job_is_submitted_and_watched_by_reflection_alone(
    gateway: httpx.AsyncClient, scheduler: Scheduler, address: str
):
    job, run = await asyncio.to_thread(submit, address)
    assert (await gateway.get(f"/v1/runs/{run}")).json()["jobId"] == job
    await scheduler.tell(job, "one")
    await scheduler.finish(job)
    watched = await asyncio.to_thread(watch, address, job)
    assert [kind for _, kind in watched] == ["job.submitted", "log", "job.started", "job.finished"]
    assert await asyncio.to_thread(resume, address, job, watched[1][0]) == ["job_started", "job_finished"]
