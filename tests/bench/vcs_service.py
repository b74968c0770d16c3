"""The vcs service as `quarterdeck up` runs it, on servers of its own, called as an agent calls it for runs it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from quarterdeck.stack import DataFolder
from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from quarterdeck.stack.processes import run_to_end
from quarterdeck.stack.services import HOST, ServiceSpecs
from services.contracts.rest import JobRequest
from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.jobs.admitting import Admitting
from services.jobs.leases import Node, tell_seen
from services.jobs.models import Hold
from services.jobs.orders import Order
from services.jobs.running import Running
from services.jobs.submission import Submissions
from services.jobs.unit import Rung, Units
from services.runtime.grpc import bearer, make_channel
from services.runtime.postgres import Database
from tests.bench.lean_stack import MIGRATE_SECONDS, running
from tests.bench.measure import Bench
from tests.bench.stacks import options
from tests.bench.vcs_remote import Remote

_CALL_SECONDS = 150
_AGENT = "bench"


@dataclass(frozen=True)
class VcsService:
    """``holds``: of runs that an agent holds, each with a worktree that is not made yet. ``strangers``: the same, of
    runs for another customer, which get nothing that the others leave.
    """

    pid: int
    root: Path
    holds: list[Hold]
    strangers: list[Hold]
    _stub: vcs_pb2_grpc.VcsAsyncStub
    _metadata: tuple[tuple[str, str], ...]

    async def clone(self, url: str) -> None:
        """Have a mirror, as it is before a second run."""
        request = vcs_pb2.CloneRequest(repository=url)
        async for _ in self._stub.Clone(request, metadata=self._metadata, timeout=_CALL_SECONDS):
            pass

    async def prepare(self, hold: Hold, url: str) -> vcs_pb2.PrepareReady:
        request = vcs_pb2.PrepareRequest(worktree=_reference(hold), repository=url)
        async for update in self._stub.Prepare(request, metadata=self._metadata, timeout=_CALL_SECONDS):
            if update.HasField("ready"):
                return update.ready
        raise RuntimeError("vcs ended the preparation without a worktree")

    async def release(self, hold: Hold, *, reusable: bool = False) -> None:
        request = vcs_pb2.ReleaseRequest(worktree=_reference(hold), reusable=reusable)
        await self._stub.Release(request, metadata=self._metadata, timeout=_CALL_SECONDS)

    def mirror(self) -> Path:
        """Of the one repository that was cloned."""
        (found,) = (self.root / "mirrors").glob("*.git")
        return found


def _reference(hold: Hold) -> vcs_pb2.WorktreeRef:
    return vcs_pb2.WorktreeRef(run_id=str(hold.run_id), attempt=hold.attempt, lease_token=str(hold.token))


@asynccontextmanager
async def vcs_service(
    bench: Bench, name: str, remote: Remote, *, runs: int, strangers: int = 0
) -> AsyncIterator[VcsService]:
    """Nothing else runs but PostgreSQL and NATS, so what so many runs hold stays held."""
    bench.say(f"{name}: starting PostgreSQL, NATS and vcs")
    folder = bench.folder(f"{name}-stack")
    async with AsyncExitStack() as opened:
        servers = await opened.enter_async_context(EmbeddedServers(folder))
        specs = ServiceSpecs(options(folder), servers.database_url, servers.nats_url)
        await run_to_end(specs.migrate(), seconds=MIGRATE_SECONDS)
        holds, others = await _held_runs(servers.database_url, runs, strangers)
        port, health_port = free_ports(2)
        spec = specs.vcs(port, health_port)
        # The measure's own server is on this machine and speaks plain HTTP.
        allowed = {
            "QUARTERDECK_GIT_ALLOW_INSECURE_HTTP": "true",
            "QUARTERDECK_GIT_ALLOWED_REMOTES": f"{HOST}:{remote.port}",
        }
        child = await opened.enter_async_context(running(replace(spec, environment={**spec.environment, **allowed})))
        channel = await opened.enter_async_context(make_channel(f"{HOST}:{port}"))
        token = spec.environment["QUARTERDECK_VCS_TOKEN"]
        stub, metadata = vcs_pb2_grpc.VcsStub(channel), tuple(bearer(token))
        yield VcsService(child.pid, DataFolder(folder).vcs, holds, others, stub, metadata)


async def _held_runs(database_url: str, *counts: int) -> list[list[Hold]]:
    """For each of several customers, submit, admit and claim so many runs.

    Their repositories are never asked: a prepare names its own.
    """
    database = Database(database_url, size=2, name="bench")
    try:
        units = Units(database, ring=_nobody_listens)
        submissions = Submissions(units)
        await submissions.ensure_client("bench", "a key")
        client = await submissions.client_of("a key")
        assert client is not None
        for number, count in enumerate(counts):
            if count:
                await submissions.submit(client, _request(f"customer {number}", count), key=None, body=b"")
        async with database.connection() as connection:
            await tell_seen(connection, Node(_AGENT, "agent", capacity=sum(counts)))
        admitting, orders = Admitting(units, most_runs=sum(counts)), []
        while (admitted := await admitting.admit()).orders:
            orders += [Order(order.run_id, order.token) for order in admitted.orders]
        claimed = await Running(units).claim(orders)
    finally:
        await database.close()
    if len(claimed) != sum(counts):
        raise RuntimeError(f"{len(claimed)} of {sum(counts)} runs were claimed")
    holds = sorted((claim.hold for claim in claimed), key=lambda hold: hold.job_id)  # in the order of submission
    return [[holds.pop(0) for _ in range(count)] for count in counts]


def _request(customer: str, runs: int) -> JobRequest:
    urls = [{"url": f"https://forge.example/bench/{number}.git"} for number in range(runs)]
    fields = {"prompt": "Change one thing", "repositories": urls, "metadata": {"clientId": customer}}
    return JobRequest.model_validate(fields)


async def _nobody_listens(_: Rung) -> None:
    """No events are published here."""
