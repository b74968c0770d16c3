"""Changesets after their publication: which a forge is to be asked about, and what it said.

A webhook only makes the next look come sooner: the forge is asked in any case, so a lost delivery costs time alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.contracts.text import storable
from services.contracts.words import ChangesetState, Checks, EventKind, Mergeable, Review
from services.jobs.errors import NotFoundError
from services.jobs.unit import SQL, Draft, Unit, Units
from services.runtime.postgres import Connection, Record, Statements

_STATEMENTS = Statements(SQL / "tracking.sql")
_PUBLISHED = (ChangesetState.OPEN, ChangesetState.MERGED, ChangesetState.CLOSED)


@dataclass(frozen=True)
class TrackedChange:
    """A changeset that a forge shows."""

    id: UUID
    job_id: UUID
    repository: str
    branch: str
    base_branch: str
    commit_sha: str
    forge: str
    number: int | None
    url: str
    state: ChangesetState
    close_comment: str | None
    """Set where it is to be closed, with this comment."""
    deletes_branch: bool
    published_at: datetime


@dataclass(frozen=True)
class Observed:
    """What a forge says of a changeset now. ``state``: open, merged or closed."""

    state: ChangesetState
    url: str = ""
    number: int | None = None
    is_draft: bool = False
    head_sha: str = ""
    checks: Checks = Checks.NONE
    review: Review = Review.NONE
    mergeable: Mergeable = Mergeable.UNKNOWN
    merge_sha: str = ""


class Tracking:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def take_due(self, *, most: int, again: timedelta) -> list[TrackedChange]:
        """Up to ``most`` changesets to ask about now; they are due again after ``again`` where nothing is recorded."""

        async def work(connection: Connection) -> list[Record]:
            return await _STATEMENTS.rows(connection, "take_due", most=most, again=again)

        return [_tracked(row) for row in await self._units.database.in_transaction(work)]

    async def published(self, changeset_id: UUID) -> TrackedChange:
        """Raises ``NotFoundError``, also for one that no forge shows."""
        async with self._units.database.connection() as connection:
            row = await _STATEMENTS.row(connection, "published", id=changeset_id)
        if row is None or row["forge"] is None or row["state"] not in _PUBLISHED:
            raise NotFoundError("published changeset", changeset_id)
        return _tracked(row)

    async def record(self, change: TrackedChange, observed: Observed, *, again: timedelta) -> None:
        """Keep what the forge said, and tell of it where it is other than it was. ``again``: until the next look."""

        async def work(unit: Unit) -> None:
            before = await _STATEMENTS.row(unit.connection, "locked", id=change.id)
            if before is None or (before["superseded_by"] and before["state"] != ChangesetState.OPEN):
                return  # another one shows what the forge says
            if before["state"] == ChangesetState.MERGED:
                return  # for good; an answer from before that is late
            await _STATEMENTS.execute(
                unit.connection,
                "record",
                id=change.id,
                state=observed.state.value,
                url=observed.url,
                number=observed.number,
                is_draft=observed.is_draft,
                head_sha=observed.head_sha,
                checks=observed.checks.value,
                review=observed.review.value,
                mergeable=observed.mergeable.value,
                merge_sha=observed.merge_sha,
                again=again,
            )
            if _differs(before, observed):
                draft = Draft(EventKind.CHANGESET_UPDATED, _told(before, observed))
                unit.tell(change.job_id, draft, run_id=before["run_id"], attempt=before["attempt"])

        await self._units.run([change.job_id], work)

    async def defer(self, changeset_id: UUID, delay: timedelta, *, error: str | None = None) -> None:
        """Do not ask about it before ``delay`` is over. ``error``: why the forge would not say; shown until it does."""

        async def work(connection: Connection) -> None:
            words = storable(error) if error is not None else None
            await _STATEMENTS.execute(connection, "defer", id=changeset_id, delay=delay, error=words)

        await self._units.database.in_transaction(work)

    async def wake(
        self, forge: str, repository: str, *, numbers: list[int], branches: list[str], shas: list[str]
    ) -> int:
        """Have the forge asked at once about these pull requests, branches or commits of ``repository`` (owner/name);
        how many changesets that is.
        """

        async def work(connection: Connection) -> int:
            found = await _STATEMENTS.rows(
                connection,
                "wake",
                forge=forge,
                repositories=_addresses(repository),
                numbers=numbers,
                branches=branches,
                shas=shas,
            )
            return len(found)

        return await self._units.database.in_transaction(work)


def _tracked(row: Record) -> TrackedChange:
    return TrackedChange(
        id=row["id"],
        job_id=row["job_id"],
        repository=row["repository"],
        branch=row["branch"],
        base_branch=row["base_branch"] or "",
        commit_sha=row["commit_sha"],
        forge=row["forge"],
        number=row["number"],
        url=row["url"] or "",
        state=ChangesetState(row["state"]),
        close_comment=row["close_comment"],
        deletes_branch=row["deletes_branch"],
        published_at=row["published_at"],
    )


def _differs(before: Record, observed: Observed) -> bool:
    now = (observed.state, observed.checks, observed.review, observed.mergeable, observed.is_draft)
    return now != (before["state"], before["checks"], before["review"], before["mergeable"], before["is_draft"])


def _told(before: Record, observed: Observed) -> dict[str, str]:
    return {
        "changesetId": str(before["id"]),
        "state": observed.state.value,
        "checks": observed.checks.value,
        "review": observed.review.value,
        "mergeable": observed.mergeable.value,
        "url": observed.url or before["url"] or "",
        "supersededBy": str(before["superseded_by"] or ""),
    }


def _addresses(full_name: str) -> list[str]:
    """Patterns of the addresses, in lower case, that a repository `owner/name` may have been given by."""
    name = full_name.lower()
    for special in "\\%_":
        name = name.replace(special, f"\\{special}")
    return [f"%{before}{name}{after}" for before in ("/", ":") for after in ("", ".git", "/")]
