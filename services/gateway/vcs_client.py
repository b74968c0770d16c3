"""Asks the vcs nodes that live: any of them about the forge, each of them about its mirror. Knows no Git.

A call has a connection of its own, on which the node must first say that it serves: what cannot be repeated may so
still be asked of another node.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypeVar

import grpc.aio
from grpc_health.v1 import health_pb2

from services.contracts.changesets import CloseRequest, CommentRequest, MergeRequest, PostedComment
from services.contracts.repositories import ForgeRepository, Mirror, NodeSync, SyncState
from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.gateway import vcs_answers, vcs_problems
from services.gateway.problems import ProblemError
from services.gateway.vcs_problems import DeadlinePassedError, NodeAwayError
from services.jobs.nodes import Nodes, VcsNode
from services.runtime.grpc import NO_TLS, GrpcSecurity, bearer, explained, make_channel

CONNECT_DEADLINE = timedelta(seconds=3)
CALL_DEADLINE = timedelta(seconds=25)
"""For all nodes that are tried; below the 30 s that clients wait for an answer."""
STATUS_DEADLINE = timedelta(seconds=5)
SYNC_WAIT = timedelta(seconds=25)
_SERVICE = vcs_pb2.DESCRIPTOR.services_by_name["Vcs"].full_name
_CHECK = "/grpc.health.v1.Health/Check"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Link:
    """An open connection to one node, and what every call on it takes."""

    stub: vcs_pb2_grpc.VcsAsyncStub
    metadata: tuple[tuple[str, str], ...]
    until: float
    """Monotonic time when the call is given up."""

    def options(self) -> dict[str, Any]:
        return {"metadata": self.metadata, "timeout": _left_seconds(self.until)}


class VcsClient:
    """Every method raises ``ProblemError``: 503 where nobody can be asked, else what the node said."""

    def __init__(
        self,
        nodes: Nodes,
        token: str | None,
        security: GrpcSecurity = NO_TLS,
        *,
        sync_wait: timedelta = SYNC_WAIT,
    ) -> None:
        """``token``: what the nodes ask for; None: they cannot be asked. ``sync_wait``: for the end of a fetch."""
        self._nodes = nodes
        self._token = token
        self._security = security
        self._sync_wait = sync_wait

    async def look_up(self, changeset_id: str) -> None:
        """Have a node ask the forge about the changeset and record it."""
        request = vcs_pb2.LookUpChangesetRequest(changeset_id=changeset_id)
        await self._anywhere(lambda link: link.stub.LookUpChangeset(request, **link.options()))

    async def merge(self, changeset_id: str, wanted: MergeRequest) -> None:
        request = vcs_pb2.MergeChangesetRequest(
            changeset_id=changeset_id, method=wanted.method.value, delete_branch=wanted.delete_branch
        )
        await self._anywhere(lambda link: link.stub.MergeChangeset(request, **link.options()))

    async def close(self, changeset_id: str, wanted: CloseRequest) -> None:
        request = vcs_pb2.CloseChangesetRequest(
            changeset_id=changeset_id, comment=wanted.comment or "", delete_branch=wanted.delete_branch
        )
        is_repeatable = wanted.comment is None
        await self._anywhere(
            lambda link: link.stub.CloseChangeset(request, **link.options()), is_repeatable=is_repeatable
        )

    async def reopen(self, changeset_id: str) -> None:
        request = vcs_pb2.ReopenChangesetRequest(changeset_id=changeset_id)
        await self._anywhere(lambda link: link.stub.ReopenChangeset(request, **link.options()))

    async def comment(self, changeset_id: str, wanted: CommentRequest) -> PostedComment:
        request = vcs_pb2.CommentRequest(
            changeset_id=changeset_id, body=wanted.body, in_reply_to=wanted.in_reply_to or ""
        )
        reply = await self._anywhere(lambda link: link.stub.Comment(request, **link.options()), is_repeatable=False)
        return PostedComment(id=reply.id, url=reply.url)

    async def discover(self, request: vcs_pb2.ListRepositoriesRequest) -> list[ForgeRepository]:
        """What the forge has, in its order."""

        async def read(link: Link) -> list[ForgeRepository]:
            found = link.stub.ListRepositories(request, **link.options())
            return [vcs_answers.forge_repository(each) async for each in found]

        return await self._anywhere(read)

    async def permission(self, repository: str, login: str) -> str:
        """`admin`, `write`, `read` or `none`. ``repository``: its URL."""
        request = vcs_pb2.GetPermissionRequest(repository=repository, login=login)
        reply = await self._anywhere(lambda link: link.stub.GetPermission(request, **link.options()))
        return reply.permission

    async def issue(self, repository: str, number: int) -> vcs_pb2.Issue:
        """An issue or pull request as it is now, with its comments."""
        request = vcs_pb2.GetIssueRequest(repository=repository, number=number)
        return await self._anywhere(lambda link: link.stub.GetIssue(request, **link.options()))

    async def failed_checks(self, repository: str, sha: str) -> list[vcs_pb2.FailedCheck]:
        request = vcs_pb2.GetFailedChecksRequest(repository=repository, sha=sha)
        reply = await self._anywhere(lambda link: link.stub.GetFailedChecks(request, **link.options()))
        return list(reply.checks)

    async def set_up_app(self, code: str) -> vcs_pb2.AppInfo:
        """Take over the App that GitHub made by a manifest; ``code`` is good once."""
        request = vcs_pb2.SetUpAppRequest(code=code)
        return await self._anywhere(lambda link: link.stub.SetUpApp(request, **link.options()), is_repeatable=False)

    async def mirrors(self, url: str) -> list[Mirror]:
        """What each living node says of its mirror of ``url``, by node; those that do not say so too."""
        return await _each(await self._living(), lambda node: self._mirror(node, url))

    async def sync(self, url: str, *, clone: bool) -> list[NodeSync]:
        """Have each node fetch its mirror of ``url``, or with ``clone`` make it, and wait for their end for a while."""
        return await _each(await self._living(), lambda node: self._sync(node, url, clone=clone))

    async def _mirror(self, node: VcsNode, url: str) -> Mirror:
        request = vcs_pb2.JanitorStatusRequest(repository=url)
        try:
            async with self._link(node, _until(STATUS_DEADLINE)) as link:
                reply = await link.stub.JanitorStatus(request, **link.options())
        except ProblemError as error:
            is_absent = error.status == HTTPStatus.NOT_FOUND
            return vcs_answers.no_mirror(node.name, error=None if is_absent else error.detail)
        if not reply.mirrors:
            return vcs_answers.no_mirror(node.name)
        return vcs_answers.present_mirror(node.name, reply.mirrors[0])

    async def _sync(self, node: VcsNode, url: str, *, clone: bool) -> NodeSync:
        seen = vcs_answers.node_sync(node.name, SyncState.RUNNING)
        try:
            async with self._link(node, _until(self._sync_wait)) as link:
                async for update in _fetch(link, url, clone=clone):
                    seen = vcs_answers.after(seen, update)
        except DeadlinePassedError:
            return seen
        except ProblemError as error:
            if error.status == HTTPStatus.NOT_FOUND and not clone:
                return vcs_answers.node_sync(node.name, SyncState.ABSENT)
            return vcs_answers.node_sync(node.name, SyncState.FAILED, error=error.detail)
        if seen.state is not SyncState.DONE:
            return vcs_answers.node_sync(node.name, SyncState.FAILED, error="the vcs node did not tell how it ended")
        return seen

    async def _anywhere(self, call: Callable[[Link], Awaitable[Result]], *, is_repeatable: bool = True) -> Result:
        """Make the call on one node; on another where that is away and, unless repeatable, was not asked yet."""
        away: ProblemError = vcs_problems.none_lives()
        until = _until(CALL_DEADLINE)
        for node in _shuffled(await self._living()):
            try:
                async with self._link(node, until) as link:
                    return await call(link)
            except NodeAwayError as error:
                if error.was_asked and not is_repeatable:
                    raise
                away = error
        raise away

    async def _living(self) -> list[VcsNode]:
        if self._token is None:
            raise vcs_problems.no_token()
        if not (nodes := await self._nodes.vcs()):
            raise vcs_problems.none_lives()
        return nodes

    @asynccontextmanager
    async def _link(self, node: VcsNode, until: float) -> AsyncIterator[Link]:
        try:
            async with make_channel(node.address, self._security) as channel:
                await _require_answer(channel, node, until)
                yield Link(vcs_pb2_grpc.VcsStub(channel), bearer(self._token or ""), until)
        except grpc.aio.AioRpcError as error:
            raise vcs_problems.problem_of(node.name, error) from error


async def _require_answer(channel: grpc.aio.Channel, node: VcsNode, until: float) -> None:
    """Raises ``NodeAwayError`` for a node that says nothing or is about to stop."""
    check: grpc.aio.UnaryUnaryMultiCallable[bytes, health_pb2.HealthCheckResponse] = channel.unary_unary(
        _CHECK, response_deserializer=health_pb2.HealthCheckResponse.FromString
    )
    request = health_pb2.HealthCheckRequest(service=_SERVICE).SerializeToString()
    try:
        answer = await check(request, timeout=min(CONNECT_DEADLINE.total_seconds(), _left_seconds(until)))
    except grpc.aio.AioRpcError as error:
        raise vcs_problems.unreached(node.name, explained(error)) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise vcs_problems.unreached(node.name, "it says that it does not serve")


def _fetch(link: Link, url: str, *, clone: bool) -> AsyncIterable[vcs_pb2.SyncUpdate]:
    if clone:
        return link.stub.Clone(vcs_pb2.CloneRequest(repository=url), **link.options())
    return link.stub.Sync(vcs_pb2.SyncRequest(repository=url), **link.options())


async def _each(nodes: Sequence[VcsNode], ask: Callable[[VcsNode], Coroutine[Any, Any, Result]]) -> list[Result]:
    """Ask all nodes at once; the answers are in their order."""
    async with asyncio.TaskGroup() as asking:
        tasks = [asking.create_task(ask(node)) for node in nodes]
    return [task.result() for task in tasks]


def _until(deadline: timedelta) -> float:
    return time.monotonic() + deadline.total_seconds()


def _left_seconds(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _shuffled(nodes: Sequence[VcsNode]) -> list[VcsNode]:
    """So that no node gets all of the look-ups."""
    return secrets.SystemRandom().sample(nodes, len(nodes))
