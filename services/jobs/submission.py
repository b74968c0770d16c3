"""How work comes in: clients and their keys, and jobs with their runs, many in one transaction."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from services.contracts import rest
from services.contracts.delivery import Checkout
from services.contracts.rest import JobRequest
from services.contracts.words import JobState, OnExisting, Publish, Queue
from services.jobs.client_settings import check_base_url
from services.jobs.errors import IdempotencyMismatchError, SecretsError, TooManyQueuedError
from services.jobs.limits import limits_of
from services.jobs.models import Client
from services.jobs.sealed import CLIENT_KEY, GITHUB_TOKEN, job_owner
from services.jobs.unit import SQL, Rung, Units
from services.runtime.base_urls import BaseUrls
from services.runtime.batching import Batcher, Rest
from services.runtime.ids import uuid7
from services.runtime.postgres import TRANSIENT, Connection, Record, Statements
from services.runtime.sealing import Sealer, SealingError

_STATEMENTS = Statements(SQL / "submission.sql")
_SLUG_CHARACTERS = 40
_MOST_AT_ONCE = 64
_REST = Rest(timedelta(milliseconds=10))
OWN_KEYS = "\N{SECTION SIGN}"
"""Keys that begin so are ours: what clients send is ASCII. They are kept for longer, see `claim_keys`."""
_SHARING = (OnExisting.UPDATE, OnExisting.SKIP)


@dataclass(frozen=True)
class Submitted:
    job_id: UUID
    made: tuple[NewJob, datetime] | None
    """The job, and when it was stored; None where its Idempotency-Key had already made one."""

    @property
    def replayed(self) -> bool:
        return self.made is None

    @property
    def job(self) -> rest.Job | None:
        """As it was made; None where it was replayed. Put together when asked for: the scheduler hears of it before."""
        return _as_made(*self.made) if self.made is not None else None


@dataclass(frozen=True)
class NewRun:
    """One run of a job to be. ``branch``: None where its name is to be made up."""

    repository: str | None
    base_ref: str | None = None
    branch: str | None = None
    resumes: UUID | None = None
    """Begins from the checkpoint of this run, on its base:"""
    base_sha: str | None = None
    base_branch: str | None = None
    checkout: Checkout | None = None
    """None: plain."""


@dataclass(frozen=True)
class NewJob:
    """One job to be. ``key``: the Idempotency-Key with the hash of its request."""

    client: Client
    request: JobRequest
    key: tuple[str, bytes] | None = None
    runs: Sequence[NewRun] = ()
    retry_of: UUID | None = None
    id: UUID = field(default_factory=uuid7)
    sealed: bytes | None = field(default=None, repr=False)
    """Its secrets, encrypted; those of ``request`` are not stored."""
    is_review: bool = False
    """It goes on with a pull request, and has a queue of its own."""

    @property
    def queue(self) -> Queue:
        return Queue.REVIEW if self.is_review else Queue(self.request.kind.value)

    @classmethod
    def of(cls, client: Client, request: JobRequest, *, key: str | None, body: bytes) -> NewJob:
        """A run for each repository; a job without one gets a run without one."""
        runs = [
            NewRun(each.url, each.base_ref, each.branch, checkout=None if each.checkout.is_plain else each.checkout)
            for each in request.repositories
        ] or [NewRun(None)]
        return cls(client, request, keyed(key, _without_secrets(request, body)), runs)


class Submissions:
    def __init__(
        self,
        units: Units,
        sealer: Sealer | None = None,
        base_urls: BaseUrls | None = None,
        *,
        ring_for: Callable[[NewJob], Awaitable[None]] | None = None,
    ) -> None:
        """Without a ``sealer`` no secret is taken; without ``base_urls`` no address but the provider's. ``ring_for``:
        rings for a job that was submitted by itself; None: as for many.
        """
        self._units = units
        self._ring_for = ring_for
        self._sealer = sealer or Sealer(None)
        self._base_urls = base_urls or BaseUrls()
        self._accept = Batcher[NewJob, Submitted](self._accept_all, most=_MOST_AT_ONCE, transient=TRANSIENT, rest=_REST)

    async def ensure_client(self, name: str, api_key: str, *, is_operator: bool = False) -> None:
        """Make the client ``name`` with ``api_key``, or give it this key. An operator stays one."""

        async def work(connection: Connection) -> None:
            await _STATEMENTS.execute(
                connection,
                "ensure_client",
                id=uuid7(),
                name=name,
                api_key_hash=_hash(api_key.encode()),
                is_operator=is_operator,
            )

        await self._units.database.in_transaction(work)

    async def client_of(self, api_key: str) -> Client | None:
        """Who holds ``api_key``; None where nobody does."""
        async with self._units.database.connection() as connection:
            row = await _STATEMENTS.row(connection, "client_by_key", api_key_hash=_hash(api_key.encode()))
        return Client(row["id"], row["name"], row["is_operator"]) if row else None

    async def submit(self, client: Client, request: JobRequest, *, key: str | None, body: bytes) -> Submitted:
        """Store the job and its runs; it is accepted once this returns.

        ``key``: the Idempotency-Key, kept 24 h; the same key with another ``body`` raises
        ``IdempotencyMismatchError``. Raises ``TooManyQueuedError``, ``RefusedFieldError``, ``SecretsError``.
        """
        job = NewJob.of(client, request, key=key, body=body)
        if secrets := _secrets_of(request):
            job = replace(job, sealed=self._sealed(job.id, secrets))
        return await self.accept(job)

    async def accept(self, job: NewJob) -> Submitted:
        """Store a job that was put together by another use case; raises as ``submit`` does."""
        check_base_url(self._base_urls, job.request.options.base_url, "options.baseUrl")
        return await self._accept(job)

    def sealed_anew(self, sealed: bytes, *, of: UUID, to: UUID) -> bytes:
        """The secrets of the job ``of`` for the job ``to``. Raises ``SecretsError``."""
        try:
            opened = self._sealer.open(sealed, owners=[job_owner(of)])
        except SealingError as error:
            raise SecretsError(f"the old job has a key of its own that cannot be taken over: {error}") from error
        return self._sealed(to, opened.secrets)

    def _sealed(self, job_id: UUID, secrets: Mapping[str, Any]) -> bytes:
        try:
            return self._sealer.seal(secrets, owner=job_owner(job_id))
        except SealingError as error:
            raise SecretsError(str(error)) from error

    async def _accept_all(self, jobs: Sequence[NewJob]) -> Sequence[Submitted | Exception]:
        answers = await self._accept_at_once(jobs) if all(job.key is None for job in jobs) else None
        if answers is None:
            answers = await self._units.database.in_transaction(
                lambda connection: _Acceptance(connection, jobs).answers()
            )
        new = [job for job, answer in zip(jobs, answers, strict=True) if _is_new(answer)]
        if len(new) == 1 and self._ring_for is not None:
            await self._ring_for(new[0])
        elif new:
            await self._units.ring(Rung.SLOTS)
        return answers

    async def _accept_at_once(self, jobs: Sequence[NewJob]) -> list[Submitted | Exception] | None:
        """Store ``jobs`` with a statement that is a transaction by itself; None where a limit has to be looked at."""

        async def work(connection: Connection) -> Record | None:
            return await _STATEMENTS.row(connection, "insert_jobs", unless_limited=True, **_columns(jobs))

        inserted = await self._units.database.in_statement(work)
        assert inserted is not None
        return None if inserted["is_limited"] else [_accepted(job, inserted) for job in jobs]


class _Acceptance:
    """One transaction that stores those of ``jobs`` that may be stored, and finds the others' answers."""

    def __init__(self, connection: Connection, jobs: Sequence[NewJob]) -> None:
        self._connection = connection
        self._jobs = jobs
        self._answers: dict[UUID, Submitted | Exception] = {}

    async def answers(self) -> list[Submitted | Exception]:
        await self._claim_keys()
        if new := [job for job in self._jobs if job.id not in self._answers]:
            await self._insert(new)
        return [self._answers[job.id] for job in self._jobs]

    async def _insert(self, jobs: Sequence[NewJob]) -> None:
        inserted = await _STATEMENTS.row(self._connection, "insert_jobs", unless_limited=False, **_columns(jobs))
        assert inserted is not None
        if inserted["is_limited"]:
            await self._check_limits(jobs)
        for job in jobs:
            self._answers[job.id] = _accepted(job, inserted)

    async def _claim_keys(self) -> None:
        """Find out which jobs their Idempotency-Keys have made already."""
        keyed = {(job.client.id, job.key[0]): job for job in reversed(self._jobs) if job.key is not None}
        if not keyed:
            return
        # Ascending, as every transaction claims them; of two with one key, the first that came.
        firsts = [keyed[name] for name in sorted(keyed)]
        names: dict[str, Any] = {"client_ids": [job.client.id for job in firsts], "keys": [_key(job) for job in firsts]}
        await _STATEMENTS.execute(
            self._connection,
            "claim_keys",
            **names,
            body_hashes=[job.key[1] for job in firsts if job.key is not None],
            job_ids=[job.id for job in firsts],
        )
        rows = await _STATEMENTS.rows(self._connection, "key_holders", **names)
        holders = {(row["client_id"], row["key"]): row for row in rows}
        for job in self._jobs:
            if job.key is None:
                continue
            holder = holders[job.client.id, job.key[0]]
            if holder["body_hash"] != job.key[1]:
                self._answers[job.id] = IdempotencyMismatchError()
            elif holder["job_id"] != job.id:
                self._answers[job.id] = Submitted(holder["job_id"], made=None)

    async def _check_limits(self, jobs: Sequence[NewJob]) -> None:
        """Check in this transaction how many jobs of each client are queued now, with ``jobs``; nobody else adds any.

        Raises ``TooManyQueuedError``: none of ``jobs`` is stored then, nor stands a key for it. The batch is done
        again one by one, so that each client hears of its own alone.
        """
        limits = limits_of(await _STATEMENTS.rows(self._connection, "queued_limits"))
        for client in sorted({job.client for job in jobs}, key=lambda client: client.id):
            most = limits.queued_of(client.name)
            if most is not None:
                await _STATEMENTS.execute(self._connection, "queue_turn", client_id=str(client.id))
                queued = await _STATEMENTS.value(self._connection, "queued_jobs", client_id=client.id, most=most + 1)
                if queued > most:
                    raise TooManyQueuedError(most)


def _columns(jobs: Sequence[NewJob]) -> dict[str, list[Any]]:
    ids = {job.id: [uuid7() for _ in job.runs] for job in jobs}
    runs = [(job, position, run, ids[job.id][position]) for job in jobs for position, run in enumerate(job.runs)]
    return {
        "ids": [job.id for job in jobs],
        "client_ids": [job.client.id for job in jobs],
        # The default's name is empty. What limits other clients does not concern these jobs.
        "limit_names": ["", *{job.client.name for job in jobs}],
        "kinds": [job.request.kind.value for job in jobs],
        "names": [job.request.name for job in jobs],
        "prompts": [job.request.prompt for job in jobs],
        "options": [job.request.options.stored() for job in jobs],
        "metadatas": [job.request.metadata for job in jobs],
        "priorities": [job.request.priority for job in jobs],
        "not_befores": [job.request.not_before for job in jobs],
        "queues": [job.queue.value for job in jobs],
        "max_parallels": [job.request.options.max_parallel for job in jobs],
        "retries_of": [job.retry_of for job in jobs],
        "sealeds": [job.sealed for job in jobs],
        "totals": [len(job.runs) for job in jobs],
        "event_ids": [uuid7() for _ in jobs],
        "events": [{"kind": job.request.kind.value, "runs": len(job.runs)} for job in jobs],
        "run_jobs": [job.id for job, *_ in runs],
        "positions": [position for _, position, *_ in runs],
        "run_ids": [run_id for *_, run_id in runs],
        "repositories": [run.repository for _, _, run, _ in runs],
        "base_refs": [run.base_ref for _, _, run, _ in runs],
        "branches": [branch for job in jobs for branch in _branches(job, ids[job.id])],
        "resumed": [run.resumes for _, _, run, _ in runs],
        "base_shas": [run.base_sha for _, _, run, _ in runs],
        "base_branches": [run.base_branch for _, _, run, _ in runs],
        "checkouts": [
            run.checkout.model_dump(mode="json", by_alias=True) if run.checkout else None for _, _, run, _ in runs
        ],
    }


def _is_new(answer: Submitted | Exception) -> bool:
    return isinstance(answer, Submitted) and not answer.replayed


def _accepted(job: NewJob, inserted: Record) -> Submitted:
    return Submitted(job.id, made=(job, inserted["created_at"]))


def _as_made(job: NewJob, created: datetime) -> rest.Job:
    request = job.request
    return rest.Job(
        id=job.id,
        name=request.name,
        kind=request.kind,
        state=JobState.QUEUED,
        outcome=None,
        prompt=request.prompt,
        priority=request.priority,
        metadata=request.metadata,
        options=request.options,
        runs=rest.RunCounts(total=len(job.runs), started=0, active=0, completed=0, failed=0, cancelled=0),
        created_at=created,
        started_at=None,
        finished_at=None,
        cancel_requested_at=None,
        not_before=request.not_before,
        retry_of=job.retry_of,
    )


def keyed(key: str | None, body: bytes) -> tuple[str, bytes] | None:
    """An Idempotency-Key with the hash of the request that it stands for."""
    return (key, _hash(body)) if key is not None else None


def _without_secrets(request: JobRequest, body: bytes) -> bytes:
    """What an Idempotency-Key stands for: from a hash of the whole ``body`` its secrets could be guessed."""
    if request.credentials is None:
        return body
    return b"with credentials " + request.model_dump_json(exclude={"credentials"}, exclude_unset=True).encode()


def _secrets_of(request: JobRequest) -> dict[str, str]:
    given = request.credentials
    named = {CLIENT_KEY: given.anthropic_api_key, GITHUB_TOKEN: given.github_token} if given else {}
    return {name: secret.get_secret_value() for name, secret in named.items() if secret is not None}


def _key(job: NewJob) -> str:
    assert job.key is not None
    return job.key[0]


def _branches(job: NewJob, run_ids: Sequence[UUID]) -> list[str]:
    """Name the runs' branches for good.

    Jobs of one name that share a pull request share its branch, so that admission lets one of them on it at a time.
    A repository that a job has twice, or two folders of, has a branch for each.
    """
    name, shares = job.request.name, shares_branches(job.request)
    branches, times = [], Counter[tuple[str | None, str]]()
    for run, run_id in zip(job.runs, run_ids, strict=True):
        path = run.checkout.path if run.checkout and run.checkout.path else ""
        mark = uuid5(job.client.id, f"{name}\0{times[run.repository, path]}{path}") if shares else run_id
        times[run.repository, path] += 1
        branches.append(run.branch or branch_name(name or job.request.prompt, mark))
    return branches


def shares_branches(request: JobRequest) -> bool:
    """Whether the job's runs are on the branches of the jobs of its name before it."""
    options = request.options
    return request.name is not None and options.on_existing in _SHARING and options.publish is not Publish.NONE


def branch_name(title: str, mark: UUID) -> str:
    """`quarterdeck/<title in a few words>-<8 hex of the mark's random part>`."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:_SLUG_CHARACTERS].rstrip("-")
    return f"quarterdeck/{words or 'change'}-{mark.hex[-8:]}"


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
