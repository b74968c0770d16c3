"""Stand-ins of vcs nodes on the wire: they answer what a test tells them, and note what they were asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health

from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.runtime.grpc import NO_TLS, GrpcSecurity, listen, make_server
from services.runtime.postgres import Database

TOKEN = "a-token-of-vcs"
ERROR_DETAIL = "quarterdeck-error-bin"


@dataclass(frozen=True)
class Refusal:
    """How a call ends. ``retry_after_seconds``: None: as where nobody of the vcs itself spoke."""

    code: grpc.StatusCode
    words: str
    retry_after_seconds: float | None = 0.0


@dataclass
class Plan:
    """By method: what it answers before it ends, and whether it then hangs or is refused."""

    answers: dict[str, list[Message]] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    asked: list[Message] = field(default_factory=list)

    def requests(self, kind: type[Message]) -> list[Message]:
        return [request for request in self.asked if isinstance(request, kind)]


class StandIn(vcs_pb2_grpc.VcsServicer):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def _stream(self, method: str, request: Message, context: Any) -> AsyncIterator[Any]:
        self._plan.asked.append(request)
        for answer in self._plan.answers.get(method, ()):
            yield answer
        if method in self._plan.hangs:
            await asyncio.Event().wait()
        if refusal := self._plan.refusals.get(method):
            detail = vcs_pb2.VcsErrorDetail(
                exit_reason="forge_rejected", retry_after_seconds=refusal.retry_after_seconds or 0
            )
            trailing = ((ERROR_DETAIL, detail.SerializeToString()),) if refusal.retry_after_seconds is not None else ()
            await context.abort(refusal.code, refusal.words, trailing)

    async def _single(self, method: str, request: Message, context: Any, default: Any) -> Any:
        answers = [answer async for answer in self._stream(method, request, context)]
        return answers[0] if answers else default

    def Sync(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto names them
        return self._stream("Sync", request, context)

    def Clone(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._stream("Clone", request, context)

    def ListRepositories(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._stream("ListRepositories", request, context)

    async def JanitorStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._single("JanitorStatus", request, context, vcs_pb2.JanitorStatusReply())

    async def GetPermission(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._single("GetPermission", request, context, vcs_pb2.GetPermissionReply(permission="write"))

    async def GetIssue(self, request: Any, context: Any) -> Any:  # noqa: N802
        default = vcs_pb2.Issue(number=request.number, title="A title", state="open", author="ada")
        return await self._single("GetIssue", request, context, default)

    async def GetFailedChecks(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._single("GetFailedChecks", request, context, vcs_pb2.GetFailedChecksReply())

    async def LookUpChangeset(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._single("LookUpChangeset", request, context, vcs_pb2.ChangesetStatus())

    async def CloseChangeset(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._single("CloseChangeset", request, context, vcs_pb2.ChangesetStatus())

    async def ReopenChangeset(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._single("ReopenChangeset", request, context, vcs_pb2.ChangesetStatus())

    async def MergeChangeset(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._single("MergeChangeset", request, context, vcs_pb2.ChangesetStatus())

    async def Comment(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._single("Comment", request, context, vcs_pb2.CommentReply(id="7", url="https://f/7"))


async def register(database: Database, name: str, address: str) -> None:
    """As a node that is seen all through the test."""
    statement = """INSERT INTO nodes (name, kind, capacity, address, seen_at)
                   VALUES ($1, 'vcs', 0, $2, now() + interval '1 hour')"""
    async with database.connection() as connection:
        await connection.execute(statement, name, address)


@asynccontextmanager
async def vcs_node(
    database: Database,
    name: str = "vcs-1",
    *,
    token: str = TOKEN,
    address: str = "127.0.0.1:0",
    security: GrpcSecurity = NO_TLS,
) -> AsyncIterator[Plan]:
    """A registered node, real on the wire; what it does is in its plan."""
    plan, server = Plan(), make_server(token)
    vcs_pb2_grpc.add_VcsServicer_to_server(StandIn(plan), server)  # type: ignore[abstract]  # in the stubs alone
    health = grpc_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await health.set("quarterdeck.v1.Vcs", health_pb2.HealthCheckResponse.SERVING)
    address = listen(server, address, security)
    await server.start()
    await register(database, name, address)
    try:
        yield plan
    finally:
        await server.stop(0)


@asynccontextmanager
async def silent_node(database: Database, name: str) -> AsyncIterator[None]:
    """A registered node that takes connections as the kernel does for a stopped process, and says nothing."""

    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    await register(database, name, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def gone_node(database: Database, name: str, port: int) -> None:
    """A node that was killed a moment ago: it is registered, and nothing listens at its address."""
    await register(database, name, f"127.0.0.1:{port}")
