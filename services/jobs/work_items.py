"""What happened on a forge and became a job: one work item each, however often and by whichever way it is told.

The job comes first, under a key that is made from what it is about: making it again makes nothing. Then the work item,
once, and with it what is said on the forge. Whoever is killed between the two has them done by the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID, uuid5

from services.contracts.delivery import Checkout
from services.contracts.rest import JobOptions, JobRequest
from services.contracts.words import ExitReason, JobState, Outcome
from services.jobs import forge_comments
from services.jobs.answers import Ended, WorkKind, answer
from services.jobs.models import Client
from services.jobs.submission import OWN_KEYS
from services.jobs.unit import SQL
from services.runtime.ids import uuid7
from services.runtime.postgres import Connection, Database, Record, Statements

Word = TypeVar("Word", bound=StrEnum)

_STATEMENTS = Statements(SQL / "work_items.sql")
_NAMESPACE = UUID("b7a4a3a0-3c0e-5a55-9d4c-5d0a6f6f1e0b")
READ_AT = "readAt"
"""Of a job's metadata: when its prompt was read from the forge."""


@dataclass(frozen=True)
class Subject:
    """What a work item is about. ``repository``: its URL. ``subject``: nothing, a comment, a review or a commit."""

    client: Client
    kind: WorkKind
    repository: str
    number: int
    subject: str = ""
    in_reply_to: str | None = None
    """The review comment whose thread is to be answered in."""
    changeset_id: UUID | None = None


@dataclass(frozen=True)
class Reading:
    """``key``: under which its job is made once. ``read_at``: before the forge was asked, in UTC."""

    key: str
    read_at: str
    job_id: UUID | None
    """None: it has no work item yet."""
    has_begun: bool
    """Its job does not wait any more."""


@dataclass(frozen=True)
class OpenChangeset:
    """A changeset that a forge shows as open, and the job that made it."""

    id: UUID
    client: Client
    job_id: UUID
    repository: str
    branch: str
    base_branch: str | None
    number: int
    is_draft: bool
    name: str | None
    """The job's."""
    prompt: str
    options: JobOptions
    checkout: Checkout | None
    sealed: bytes | None = field(repr=False)


class WorkItems:
    """Every method raises ``StoreUnavailableError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, about: Subject) -> Reading:
        """To be called before the forge is asked about it: what is read later takes the place of what was earlier."""
        names = _names(about)
        async with self._database.connection() as connection:
            key = await _STATEMENTS.row(connection, "key", repository=about.repository)
            item = await _STATEMENTS.row(connection, "item", **names)
        assert key is not None
        name = "\0".join([about.kind, key["repository_key"], str(about.number), about.subject])
        return Reading(
            key=f"{OWN_KEYS}{uuid5(_NAMESPACE, name)}",
            read_at=key["read_at"],
            job_id=item["job_id"] if item else None,
            has_begun=item is not None and item["state"] != JobState.QUEUED,
        )

    async def add(self, about: Subject, job_id: UUID, *, said: str | None) -> bool:
        """Whether it is new. ``said``: what is then to be said on the forge, in Markdown; None: nothing."""
        item_id = uuid7()

        async def work(connection: Connection) -> bool:
            values = {"id": item_id, "job_id": job_id, "changeset_id": about.changeset_id, **_names(about)}
            made = await _STATEMENTS.rows(connection, "insert", in_reply_to=about.in_reply_to, **values)
            if made and said is not None:
                await forge_comments.queue(
                    connection,
                    work_item_id=item_id,
                    repository=about.repository,
                    number=about.number,
                    in_reply_to=about.in_reply_to,
                    body=said,
                )
            return bool(made)

        return await self._database.in_transaction(work)

    async def amend(self, job_id: UUID, request: JobRequest, *, read_at: str) -> bool:
        """Have the job do what ``request`` says now; whether it was changed, which no job is that has begun."""

        async def work(connection: Connection) -> bool:
            changed = await _STATEMENTS.rows(
                connection,
                "amend",
                job_id=job_id,
                read_at=read_at,
                prompt=request.prompt,
                options=request.options.stored(),
                metadata=request.metadata,
            )
            return bool(changed)

        return await self._database.in_transaction(work)

    async def open_changeset(
        self, forge: str, full_name: str, *, number: int | None = None, head_sha: str | None = None
    ) -> OpenChangeset | None:
        """``full_name``: owner/name. By the pull request's number, or by the commit at the head of its branch."""
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(
                connection, "open_changeset", forge=forge, full_name=full_name, number=number, head_sha=head_sha
            )
        return _open(row) if row is not None and row["number"] is not None else None

    async def count(self, about: Subject) -> int:
        """How many there are of its kind about its pull request."""
        async with self._database.connection() as connection:
            names = {name: value for name, value in _names(about).items() if name != "subject"}
            found: int = await _STATEMENTS.value(connection, "count", **names)
        return found

    async def answer_ended(self, *, most: int) -> int:
        """Have what came of up to ``most`` ended jobs told where they came from; how many that was."""

        async def work(connection: Connection) -> int:
            rows = await _STATEMENTS.rows(connection, "ended", most=most)
            for row in rows:
                await self._tell(connection, row)
            return len(rows)

        return await self._database.in_transaction(work)

    async def _tell(self, connection: Connection, row: Record) -> None:
        await forge_comments.queue(
            connection,
            work_item_id=row["id"],
            repository=row["repository"],
            number=row["number"],
            in_reply_to=row["in_reply_to"],
            body=answer(_ended(row)),
        )
        await _STATEMENTS.execute(connection, "answered", id=row["id"])


def _names(about: Subject) -> Mapping[str, Any]:
    return {
        "client_id": about.client.id,
        "kind": about.kind.value,
        "repository": about.repository,
        "number": about.number,
        "subject": about.subject,
    }


def _open(row: Record) -> OpenChangeset:
    return OpenChangeset(
        id=row["id"],
        client=Client(row["client_id"], row["client_name"]),
        job_id=row["job_id"],
        repository=row["repository"],
        branch=row["branch"],
        base_branch=row["base_branch"],
        number=row["number"],
        is_draft=row["is_draft"],
        name=row["name"],
        prompt=row["prompt"],
        options=JobOptions.model_validate(row["options"]),
        checkout=Checkout.model_validate(row["checkout"]) if row["checkout"] else None,
        sealed=row["sealed"],
    )


def _ended(row: Record) -> Ended:
    patch: bytes | None = row["patch"]
    return Ended(
        kind=WorkKind(row["kind"]),
        state=JobState(row["job_state"]),
        outcome=_known(Outcome, row["outcome"]),
        exit_reason=_known(ExitReason, row["exit_reason"]),
        error=row["error"] or row["changeset_error"] or "",
        summary=row["summary"] or "",
        url=row["url"] or "",
        commit_sha=row["commit_sha"] or "",
        patch=patch.decode("utf-8", "replace") if patch is not None else None,
    )


def _known(words: type[Word], text: str | None) -> Word | None:
    """None also for a word that an agent of a newer version wrote: its work item is answered all the same."""
    return words(text) if text in {word.value for word in words} else None
