"""The whole domain over one database, with the steps that most tests begin with."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from services.contracts import rest, subjects
from services.contracts.limits import Limits
from services.contracts.rest import JobRequest, MessageRequest, RetryRequest
from services.contracts.words import EventKind, Outcome, Publish
from services.jobs.admitting import Admitting
from services.jobs.cancelling import Cancelling
from services.jobs.eventlog import MOST_BYTES, EventLog, LoggedEvent, payload_name
from services.jobs.fairness import Candidate
from services.jobs.leases import Node, tell_seen
from services.jobs.limits import LimitSetting
from services.jobs.messaging import Messaging
from services.jobs.models import ClaimedRun, Client, Commit
from services.jobs.newcomers import bell_for, heard
from services.jobs.orders import Order
from services.jobs.outbox import Outbox
from services.jobs.publishing import Publication, Publishing, Shown
from services.jobs.reading import Reading
from services.jobs.retrying import Retrying
from services.jobs.running import Running
from services.jobs.scheduling import Dispatched, Scheduling
from services.jobs.submission import NewJob, Submissions
from services.jobs.tracking import Tracking
from services.jobs.unit import Rung, Units
from services.runtime.postgres import Database, Record
from services.scheduler.publication import message_of

REPOSITORY = "https://forge.example/a/one.git"
COMMIT = Commit(
    sha="c" * 40,
    author_name="Quarterdeck",
    author_email="quarterdeck@forge.example",
    time=datetime(2026, 1, 31, 12, tzinfo=UTC),
    message="Change one thing",
    patch=b"diff --git a/x b/x\n\xff\0binary",
    files=[{"path": "x", "change": "modified", "insertions": 3, "deletions": 1, "binary": False}],
)
OPTIONS = (
    "publish",
    "onExisting",
    "maxParallel",
    "maxAttempts",
    "deadlineSeconds",
    "queueDeadlineSeconds",
    "idleLimitSeconds",
)
EVERY_TABLE = (
    *("jobs", "runs", "leases", "messages", "checkpoints", "changesets", "events"),
    *("model_usage", "void_usage", "spending"),
)


def job_request(*repositories: str, **fields: Any) -> JobRequest:
    """``fields``: as JSON has them; what belongs to the options is found by its name."""
    options = {name: fields.pop(name) for name in OPTIONS if name in fields}
    document = {
        "prompt": "Change one thing",
        "repositories": [{"url": url} for url in repositories],
        "options": options,
        **fields,
    }
    return JobRequest.model_validate(document)


def shown(url: str) -> Shown:
    """As the local forge shows a changeset; not asked about again soon."""
    return Shown("local", url, None, timedelta(hours=1))


async def tell_capacity(database: Database, slots: int = 0, **others: int) -> None:
    """Let `agent-1` with so many places be alive, and these ``others`` (`agent_2` is `agent-2`), and nobody else."""
    places = {"agent-1": slots, **{name.replace("_", "-"): places for name, places in others.items()}}
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM nodes")
        for name, capacity in places.items():
            await tell_seen(connection, Node(name, "agent", capacity=capacity))


def order_of(given: Dispatched) -> Order:
    """As the agent hears it."""
    return Order(given.run_id, given.token, given.job_id, given.work or b"")


async def given_out(outbox: Outbox, confirmed: int, *, most: int) -> list[LoggedEvent] | None:
    """What ``outbox`` has to be sent next, as whoever hears the messages understands them."""
    events = await outbox.next(confirmed, most=most)
    if events is None:
        return None
    messages = [message_of(event, most_bytes=MOST_BYTES) for event in events]
    return [heard_event(message.data, message.headers) for message in messages]


def heard_event(data: bytes, headers: Mapping[str, str]) -> LoggedEvent:
    told = orjson.loads(data)
    kind = EventKind(told["kind"])
    return LoggedEvent(
        id=UUID(told["id"]),
        job_id=UUID(told["jobId"]),
        run_id=UUID(told["runId"]) if "runId" in told else None,
        number=told["number"],
        attempt=told.get("attempt", 0),
        kind=kind,
        data=told[payload_name(kind)],
        created_at=datetime.fromisoformat(told["time"]),
        client_id=UUID(headers[subjects.CLIENT_HEADER]),
        sequence=int(headers[subjects.SEQUENCE_HEADER]),
    )


class Domain:
    """Every use case of the jobs, for one client unless another is named."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rings = 0
        units = self.units = Units(database, ring=self._ring)
        self.newcomers: list[Candidate] = []
        """What admission has heard of since it last heard."""
        self.submissions = Submissions(units, ring_for=self._ring_for)
        self.admitting = Admitting(units, most_runs=10_000)
        self.scheduling = Scheduling(units)
        self.running = Running(units)
        self.publishing = Publishing(units)
        self.tracking = Tracking(units)
        self.cancelling = Cancelling(units)
        self.retrying = Retrying(units, self.submissions)
        self.messaging = Messaging(units)
        self.limits = LimitSetting(units)
        self.outbox = Outbox(database)
        self.reading = Reading(database)
        self.log = EventLog(database)
        self.client = Client(UUID(int=0), "nobody yet")

    async def _ring(self, _: Rung) -> None:
        self.rings += 1

    async def _ring_for(self, job: NewJob) -> None:
        self.rings += 1
        rung, newcomer = heard(bell_for(job))
        assert rung is Rung.SLOTS
        self.newcomers += [newcomer] if newcomer is not None else []

    async def new_client(self, name: str) -> Client:
        await self.submissions.ensure_client(name, f"key of {name}")
        client = await self.submissions.client_of(f"key of {name}")
        assert client is not None
        return client

    async def submit(self, *repositories: str, client: Client | None = None, **fields: Any) -> UUID:
        """Submit a job, of one run where no repository is named; return its id."""
        request = job_request(*(repositories or (REPOSITORY,)), **fields)
        submitted = await self.submissions.submit(client or self.client, request, key=None, body=b"")
        return submitted.job_id

    async def admit(self, slots: int = 100, **others: int) -> list[Dispatched]:
        """Admit while `agent-1` has fewer than ``slots`` runs, and other agents (`agent_2`) fewer than so many."""
        await tell_capacity(self.database, slots, **others)
        orders: list[Dispatched] = []
        while True:
            admitted = await self.admitting.admit()
            orders += admitted.orders
            await self.admitting.hide(admitted.short)
            if not admitted.look_again:
                return orders

    async def dispatch_one(self, *repositories: str, **fields: Any) -> Dispatched:
        """Submit a job and admit; return its first run's order."""
        job_id = await self.submit(*repositories, **fields)
        return next(order for order in await self.admit() if order.job_id == job_id)

    async def dispatch_as_before(self, *repositories: str, **fields: Any) -> UUID:
        """Submit a job, and leave its runs as schedulers did before runs were given to agents: ordered, and nobody's
        yet. Return the job's id.
        """
        job_id = await self.submit(*repositories, **fields)
        async with self.database.transaction() as connection:
            await connection.execute(
                "UPDATE runs SET state = 'dispatched', dispatch = 1, dispatched_at = now() WHERE job_id = $1", job_id
            )
            await connection.execute("UPDATE jobs SET runs_active = runs_total WHERE id = $1", job_id)
        return job_id

    async def claim(self, order: Dispatched) -> ClaimedRun | None:
        """Let the agent that the run was given to take it up."""
        claims = await self.running.claim([Order(order.run_id, order.token)])
        return await self.running.take_up(claims[0]) if claims else None

    async def claimed(self, order: Dispatched) -> ClaimedRun:
        run = await self.claim(order)
        assert run is not None
        return run

    async def start(self, *repositories: str, **fields: Any) -> ClaimedRun:
        """Submit, admit, claim and prepare the first run of a job."""
        run = await self.claimed(await self.dispatch_one(*repositories, **fields))
        await self.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
        return run

    async def talk(self, **fields: Any) -> ClaimedRun:
        """A conversation that an agent holds."""
        return await self.claimed(await self.dispatch_one(kind="task", **fields))

    async def say(self, job_id: UUID, text: str, **fields: Any) -> rest.Message:
        return await self.messaging.send(self.client, job_id, MessageRequest.model_validate({"text": text, **fields}))

    async def retry(self, job_id: UUID, **fields: Any) -> UUID:
        """Do an ended job again; return the new job's id."""
        wanted = RetryRequest.model_validate(fields)
        return (await self.retrying.retry(self.client, job_id, wanted, key=None, body=b"")).job_id

    async def resume(self, run_id: UUID) -> ClaimedRun:
        """Admit and claim a run that was queued again."""
        return await self.claimed(next(order for order in await self.admit() if order.run_id == run_id))

    async def finish(self, run: ClaimedRun) -> None:
        await self.running.complete(run.hold, Outcome.NO_CHANGES, summary="nothing to do")

    async def hand_over(self) -> tuple[ClaimedRun, UUID]:
        """A run whose changeset waits for a vcs, and the changeset's id."""
        run = await self.start()
        return run, await self.running.deliver(run.hold, COMMIT, publish=Publish.PULL_REQUEST, summary="done")

    async def claim_changeset(self, run: ClaimedRun, changeset_id: UUID, *, dispatch: int = 1) -> Publication | None:
        return await self.publishing.claim(changeset_id, run.hold.run_id, dispatch=dispatch, holder="vcs-1")

    async def push(self) -> Publication:
        """A changeset that a vcs is pushing."""
        publication = await self.claim_changeset(*await self.hand_over())
        assert publication is not None
        return publication

    async def lose(self) -> int:
        """Sweep for expired leases, having been connected for long."""
        return await self.scheduling.lose_expired(connected_for=timedelta(days=1))

    async def set_limits(self, **limits: Any) -> None:
        """``limits``: as JSON has them."""
        operator = Client(self.client.id, self.client.name, is_operator=True)
        await self.limits.replace(operator, Limits.model_validate(limits))

    async def expire(self, identifier: UUID) -> None:
        """Let the lease of a run or changeset have run out."""
        await self.execute("UPDATE leases SET expires_at = now() - interval '1 second' WHERE id = $1", identifier)

    async def execute(self, statement: str, *arguments: Any) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *arguments)

    async def rows(self, statement: str, *arguments: Any) -> list[Record]:
        async with self.database.connection() as connection:
            return list(await connection.fetch(statement, *arguments))

    async def row(self, table: str, identifier: UUID) -> Record:
        (row,) = await self.rows(f"SELECT * FROM {table} WHERE id = $1", identifier)
        return row

    async def run_states(self, job_id: UUID) -> list[str]:
        rows = await self.rows("SELECT state FROM runs WHERE job_id = $1 ORDER BY position", job_id)
        return [row["state"] for row in rows]

    async def events(self, job_id: UUID) -> list[LoggedEvent]:
        return await self.log.after(job_id, 0)

    async def given_out(self, confirmed: int, *, most: int) -> list[LoggedEvent] | None:
        return await given_out(self.outbox, confirmed, most=most)

    async def kinds(self, job_id: UUID) -> list[str]:
        return [event.kind.value for event in await self.events(job_id)]

    async def fingerprint(self) -> str:
        """Of everything stored: whatever changes a row changes it."""
        digest = hashlib.sha256()
        for table in EVERY_TABLE:
            rows = await self.rows(f"SELECT t::text AS line FROM {table} t ORDER BY 1")
            digest.update("\n".join(row["line"] for row in rows).encode())
        return digest.hexdigest()
