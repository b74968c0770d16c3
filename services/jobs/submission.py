"""How work comes in: clients and their keys, and a job with its runs in one transaction."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from uuid import UUID

from uuid_utils.compat import uuid7

from services.contracts.rest import JobRequest
from services.contracts.words import EventKind, Queue
from services.jobs.errors import IdempotencyMismatchError
from services.jobs.unit import SQL, Draft, Unit, Units
from services.runtime.postgres import Connection, Statements

_STATEMENTS = Statements(SQL / "submission.sql")
_SLUG_CHARACTERS = 40


@dataclass(frozen=True)
class Client:
    """A tenant: whose jobs these are."""

    id: UUID
    name: str


@dataclass(frozen=True)
class Submitted:
    job_id: UUID
    replayed: bool
    """The Idempotency-Key had already made this job."""


class Submissions:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def ensure_client(self, name: str, api_key: str) -> None:
        """Make the client ``name`` with ``api_key``, or give it this key."""

        async def work(connection: Connection) -> None:
            await _STATEMENTS.execute(
                connection, "ensure_client", id=uuid7(), name=name, api_key_hash=_hash(api_key.encode())
            )

        await self._units.database.in_transaction(work)

    async def client_of(self, api_key: str) -> Client | None:
        """Who holds ``api_key``; None where nobody does."""
        async with self._units.database.connection() as connection:
            row = await _STATEMENTS.row(connection, "client_by_key", api_key_hash=_hash(api_key.encode()))
        return Client(row["id"], row["name"]) if row else None

    async def submit(self, client: Client, request: JobRequest, *, key: str | None, body: bytes) -> Submitted:
        """Store the job and its runs; it is accepted once this returns.

        ``key``: the Idempotency-Key, kept 24 h; the same key with another ``body`` raises
        ``IdempotencyMismatchError``. A task without a repository gets one run without one.
        """
        job_id = uuid7()

        async def work(unit: Unit) -> Submitted:
            connection = unit.connection
            if key is not None:
                hashed = _hash(body)
                await _STATEMENTS.execute(
                    connection, "claim_key", client_id=client.id, key=key, body_hash=hashed, job_id=job_id
                )
                holder = await _STATEMENTS.row(connection, "key_holder", client_id=client.id, key=key)
                assert holder is not None
                if holder["body_hash"] != hashed:
                    raise IdempotencyMismatchError
                if holder["job_id"] != job_id:
                    return Submitted(holder["job_id"], replayed=True)
            await _insert(connection, client, job_id, request)
            await _tell_submitted(unit, connection, job_id, request)
            return Submitted(job_id, replayed=False)

        return await self._units.run([], work)


async def _insert(connection: Connection, client: Client, job_id: UUID, request: JobRequest) -> None:
    targets: list[tuple[str | None, str | None]] = [(r.url, r.base_ref) for r in request.repositories]
    targets = targets or [(None, None)]
    run_ids = [uuid7() for _ in targets]
    await _STATEMENTS.execute(
        connection,
        "insert_job",
        id=job_id,
        client_id=client.id,
        kind=request.kind.value,
        name=request.name,
        prompt=request.prompt,
        options=request.options.model_dump(mode="json", by_alias=True),
        priority=request.priority,
        not_before=request.not_before,
        runs_total=len(targets),
    )
    await _STATEMENTS.execute(
        connection,
        "insert_runs",
        job_id=job_id,
        client_id=client.id,
        queue=Queue(request.kind.value).value,
        priority=request.priority,
        max_parallel=request.options.max_parallel,
        not_before=request.not_before,
        ids=run_ids,
        positions=list(range(len(targets))),
        repositories=[url for url, _ in targets],
        base_refs=[ref for _, ref in targets],
        branches=[branch_name(request.name or request.prompt, run_id) for run_id in run_ids],
    )


async def _tell_submitted(unit: Unit, connection: Connection, job_id: UUID, request: JobRequest) -> None:
    locked = await Unit.lock(connection, [job_id])
    unit.jobs.update(locked.jobs)
    runs = locked.jobs[job_id].tally.total
    unit.tell(job_id, Draft(EventKind.JOB_SUBMITTED, {"kind": request.kind.value, "runs": runs}))


def branch_name(title: str, run_id: UUID) -> str:
    """Name the run's branch for good: `quarterdeck/<title in a few words>-<8 hex of the run's random part>`."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:_SLUG_CHARACTERS].rstrip("-")
    return f"quarterdeck/{words or 'change'}-{run_id.hex[-8:]}"


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
