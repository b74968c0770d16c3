"""A real gateway that serves Cody Batch, a stand-in for scheduler, agent and vcs, and one for the forge's list."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts.v1 import vcs_pb2
from services.contracts.words import EventKind, Publish
from services.gateway.dialects.cody_batch import cody_batch
from services.gateway.dialects.cody_batch.naming import job_id_of
from services.gateway.dialects.cody_batch.settings import CodySettings
from services.gateway.dialects.dialect import Dialect
from services.jobs.models import Checkpoint, ClaimedRun, ModelUse, StoredMessage, Usage
from services.jobs.publishing import Publication, Shown
from services.jobs.scheduling import Dispatched
from services.jobs.unit import Draft
from tests.contract.cody_batch.document import CREATE
from tests.contract.serving import Api, fleet_of, running_api
from tests.integration.conftest import (
    database_url,
    drop_database,
    emptied_nats_url,
    execute,
    lending,
    lent_nats,
    nats_server,
    nats_url,
    servers,
    template_database,
)
from tests.integration.gateway.vcs_nodes import TOKEN, Plan, vcs_node
from tests.integration.jobs.domain import COMMIT, Domain

__all__ = [
    "database_url",
    "emptied_nats_url",
    "lending",
    "lent_nats",
    "nats_server",
    "nats_url",
    "servers",
    "template_database",
]

ALLOWED = "github.com/liamzdenek/*, demo/*"
LISTED = [
    vcs_pb2.ForgeRepository(
        full_name=f"liamzdenek/{name}", clone_url=f"https://github.com/liamzdenek/{name}.git", description=words
    )
    for name, words in (("repo2", "Another repository"), ("repo1", "Repository description"))
] + [vcs_pb2.ForgeRepository(full_name="somebody/else", clone_url="https://github.com/somebody/else.git")]


def dialect(port: int | None = None, **settings: Any) -> Dialect:
    values: dict[str, Any] = {"port": port, "allowed_repositories": ALLOWED, "max_workers": 1_000} | settings
    made = cody_batch(CodySettings(**values), "127.0.0.1")
    assert made is not None
    return made


@dataclass
class Work:
    """What a run is to leave behind. ``messages``: role and content of each, in turn."""

    messages: Sequence[tuple[str, Any]] = ()
    log: Sequence[tuple[str, str]] = ()
    usage: Usage = field(default_factory=Usage)
    turns: Sequence[dict[str, Any]] = ()

    @property
    def checkpoint(self) -> Checkpoint:
        stored = [
            StoredMessage(number, role, orjson.dumps({"role": role, "content": content}))
            for number, (role, content) in enumerate(self.messages, start=1)
        ]
        told = [Draft(EventKind.LOG, {"level": level, "message": message}) for level, message in self.log]
        told += [Draft(EventKind.TURN_ENDED, data) for data in self.turns]
        use = ModelUse(self.usage, "claude-sonnet-5-5", 0)
        return Checkpoint(messages=stored, usage=use, events=told)


class Runs:
    """Moves the runs of Cody's jobs through their states."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._orders: dict[UUID, Dispatched] = {}

    async def give(self, job_id: str) -> list[Dispatched]:
        """Admit what waits; the orders that give all runs of the job to agents, in the order of its repositories."""
        self._orders |= {order.run_id: order for order in await self.domain.admit()}
        query = "SELECT id FROM runs WHERE job_id = $1 ORDER BY position"
        return [self._orders[row["id"]] for row in await self.domain.rows(query, native_id(job_id))]

    async def claim(self, job_id: str) -> list[ClaimedRun]:
        """Admit what waits, and let agents begin with all runs of the job; in the order of its repositories."""
        runs = [await self.domain.claimed(order) for order in await self.give(job_id)]
        for run in runs:
            await self.domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
        return runs

    async def work(self, run: ClaimedRun, work: Work) -> None:
        await self.domain.running.checkpoint(run.hold, work.checkpoint)

    async def store(self, run: ClaimedRun, patch: bytes, *, publish: Publish = Publish.PULL_REQUEST) -> UUID:
        return await self.domain.running.deliver(run.hold, replace(COMMIT, patch=patch), publish=publish, summary="did")

    async def push(self, run: ClaimedRun, changeset_id: UUID) -> Publication:
        """Let a vcs begin with the publication."""
        await self.domain.publishing.due(overdue=timedelta())
        row = await self.domain.row("changesets", changeset_id)
        dispatch = row["dispatch"]
        publication = await self.domain.publishing.claim(
            changeset_id, run.hold.run_id, dispatch=dispatch, holder="vcs-1"
        )
        assert publication is not None
        return publication

    async def publish(self, run: ClaimedRun, patch: bytes, url: str, number: int = 1) -> None:
        """Let the run end in an open pull request at ``url``."""
        publication = await self.push(run, await self.store(run, patch))
        shown = Shown("github", url, number, timedelta(hours=1))
        branch, sha = publication.branch, publication.commit_sha
        await self.domain.publishing.delivered(publication.hold, shown, branch=branch, commit_sha=sha)


@dataclass
class Cody:
    api: Api
    runs: Runs
    plan: Plan
    """What the vcs node answers to the gateway."""

    async def create(self, **fields: Any) -> str:
        """The new job's id; of one repository unless others are named."""
        body = CREATE | {"repositories": ["liamzdenek/repo1"]} | fields
        answer = await self.api.alone.post("/jobs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["jobId"])

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.api.alone.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


def native_id(job_id: str) -> UUID:
    native = job_id_of(job_id)
    assert native is not None
    return native


@pytest.fixture(scope="session")
async def cody(servers: EmbeddedServers, template_database: str) -> AsyncIterator[Cody]:
    """One for all tests: each of them makes jobs of its own."""
    name = "test_cody_batch"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    url = servers.postgres.database_url(name)
    async with (
        fleet_of(url, "cody-batch") as fleet,
        vcs_node(fleet.domain.database) as plan,
        running_api(url, servers.nats_url, dialect, vcs_token=TOKEN) as api,
    ):
        plan.answers["ListRepositories"] = list(LISTED)
        yield Cody(api, Runs(fleet.domain), plan)
    await drop_database(servers, name)


@pytest.fixture(params=["alone", "mounted"])
def client(request: pytest.FixtureRequest, cody: Cody) -> httpx.AsyncClient:
    return cody.api.alone if request.param == "alone" else cody.api.mounted
