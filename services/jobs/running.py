"""The agent's side of a run: claim, checkpoint, and the ways an attempt can end.

Every write carries the lease token; one that no longer holds the run raises ``LeaseLostError`` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from services.contracts.text import clipped, storable
from services.contracts.words import ChangesetState, EventKind, ExitReason, Outcome, Publish, RunState
from services.jobs import checkpointing
from services.jobs.errors import LeaseLostError
from services.jobs.eventlog import MOST_LINE_CHARACTERS, told_summary
from services.jobs.models import (
    Checkpoint,
    ClaimedRun,
    Commit,
    Hold,
    Standing,
    VoidUse,
)
from services.jobs.orders import Claim, Order, claimed_run, known_run
from services.jobs.scheduling import LEASE, cancel_locked
from services.jobs.unit import SQL, Draft, Rung, Unit, Units
from services.runtime.batching import Batcher, Rest
from services.runtime.ids import uuid7
from services.runtime.postgres import TRANSIENT, Connection, Record, Statements

_STATEMENTS = Statements(SQL / "running.sql")
_MOST_COMPLETIONS = 256
_BYTES = attrgetter("bytes")
"""What Postgres orders identifiers by; to compare two of the standard library's takes longer."""
_REST = Rest(timedelta(milliseconds=30))


@dataclass(frozen=True)
class _Completion:
    hold: Hold
    outcome: Outcome
    summary: str
    read_through: int

    @property
    def told(self) -> str | None:
        """As the event has the summary; None: all of it."""
        told = told_summary(self.summary)
        return told if told != self.summary else None


class Running:
    def __init__(self, units: Units) -> None:
        self._units = units
        self._complete = Batcher[_Completion, bool](
            self._complete_all, most=_MOST_COMPLETIONS, transient=TRANSIENT, rest=_REST
        )

    async def claim(self, orders: Sequence[Order]) -> list[Claim]:
        """Take up the runs that are ordered; those whose order is stale are not in the answer. Each is to be renewed
        from then on, and begun with what ``take_up`` says.
        """

        async def work(connection: Connection) -> list[Record]:
            return await _STATEMENTS.rows(
                connection,
                "claim_runs",
                run_ids=[order.run_id for order in orders],
                tokens=[order.token for order in orders],
                lease=LEASE,
            )

        rows = await self._units.database.in_statement(work)
        return [Claim(Hold(row["id"], row["job_id"], row["attempt"], row["lease_token"]), row) for row in rows]

    async def take_up(self, claim: Claim) -> ClaimedRun:
        """All that an agent needs of a run that it has claimed, with what earlier attempts left, or the run from which
        it goes on. Raises ``StoreUnavailableError``.

        For each by itself, and not with the claim of many: a transcript and a tree may be large.
        """
        row = claim.row
        run_id = claim.hold.run_id
        if (known := known_run(claim)) is not None:
            return known

        async def left(connection: Connection) -> ClaimedRun:
            skipped_for: str | None = None
            if row["may_be_skipped"]:
                skipped_for = await _STATEMENTS.value(connection, "skipped_for", run_id=run_id)
            if claim.is_new:
                return claimed_run(claim, skipped_for=skipped_for)
            if row["resumes"] is not None:
                await _STATEMENTS.execute(connection, "take_over", run_id=run_id, token=claim.hold.token)
            messages = await _STATEMENTS.rows(connection, "transcript", run_id=run_id)
            saved = await _STATEMENTS.row(connection, "checkpoint", run_id=run_id)
            outputs = await _STATEMENTS.rows(connection, "outputs", run_id=run_id)
            return claimed_run(claim, messages, saved, outputs, skipped_for=skipped_for)

        return await self._units.database.in_transaction(left)

    async def holds(self, run_id: UUID, *, attempt: int, token: UUID) -> bool:
        """Whether ``token`` holds the run now; without a lock."""
        async with self._units.database.connection() as connection:
            held: bool = await _STATEMENTS.value(connection, "is_held", run_id=run_id, attempt=attempt, token=token)
        return held

    async def prepared(
        self, hold: Hold, *, base_sha: str | None, base_branch: str | None, events: Sequence[Draft]
    ) -> None:
        """Fix the base at the first prepare, and tell that the worktree is ready. None: there is none."""

        async def work(unit: Unit) -> None:
            await _fenced(unit, hold)
            if await unit.has_told(hold.job_id, events):
                return
            await _STATEMENTS.execute(
                unit.connection, "record_base", run_id=hold.run_id, base_sha=base_sha, base_branch=base_branch
            )
            _tell_all(unit, hold, events)

        await self._units.run([hold.job_id], work)

    async def checkpoint(self, hold: Hold, checkpoint: Checkpoint) -> Standing:
        """Store what a step of a turn adds. Safe to repeat where the first try's commit is unknown."""
        standing = await checkpointing.store(self._units.database, hold, checkpoint)
        if checkpoint.events:
            await self._units.ring(Rung.EVENTS)
        return standing

    async def count_void(self, hold: Hold, uses: Sequence[VoidUse]) -> None:
        """Count what was paid for in vain, each once, also where a cancel was asked for. Safe to repeat."""
        await checkpointing.count_void(self._units.database, hold, uses)

    async def tell(self, hold: Hold, events: Sequence[Draft]) -> None:
        """Append durable events of the run."""
        await self.checkpoint(hold, Checkpoint(events=events))

    async def complete(self, hold: Hold, outcome: Outcome, *, summary: str, read_through: int = 0) -> bool:
        """End the run without a publication: no changes, or an answer; False where its user has said something that
        is unread and above ``read_through``: then it goes on.
        """
        return await self._complete(_Completion(hold, outcome, storable(summary), read_through))

    async def _complete_all(self, completions: Sequence[_Completion]) -> Sequence[bool | Exception]:
        ordered = sorted(completions, key=lambda each: each.hold.run_id.bytes)  # the order in which all are locked
        job_ids = sorted({each.hold.job_id for each in ordered}, key=_BYTES)
        job_event_ids, event_ids = [uuid7() for _ in job_ids], [uuid7() for _ in ordered]

        async def work(connection: Connection) -> list[Record]:
            await _STATEMENTS.execute(connection, "lock_jobs", ids=job_ids)
            return await _STATEMENTS.rows(
                connection,
                "complete_runs",
                job_event_ids=job_event_ids,
                run_ids=[each.hold.run_id for each in ordered],
                tokens=[each.hold.token for each in ordered],
                event_ids=event_ids,
                outcomes=[each.outcome.value for each in ordered],
                summaries=[each.summary for each in ordered],
                told_summaries=[each.told for each in ordered],
                read_through=[each.read_through for each in ordered],
            )

        rows = await self._units.database.in_transaction(work)
        done = {row["id"]: not row["has_unread"] for row in rows}
        if any(done.values()):
            await self._units.ring(Rung.SLOTS)
        return [done[each.hold.run_id] if each.hold.run_id in done else _lost(each.hold) for each in completions]

    async def deliver(
        self,
        hold: Hold,
        commit: Commit,
        *,
        publish: Publish,
        summary: str,
        verified: bool | None = None,
    ) -> UUID:
        """Store the changeset and queue its publication; with `Publish.NONE` the run completes instead: as `unverified`
        where its tests failed, else as `stored`.

        ``verified``: whether its tests passed; None: none were run. Returns the changeset's id.
        """
        changeset_id = uuid7()

        async def work(unit: Unit) -> UUID:
            await _fenced(unit, hold)
            await _insert_changeset(unit.connection, hold, changeset_id, commit, publish=publish, verified=verified)
            unit.tell(
                hold.job_id,
                Draft(EventKind.CHANGESET_STORED, _stored_payload(changeset_id, commit)),
                run_id=hold.run_id,
                attempt=hold.attempt,
            )
            if publish is not Publish.NONE:
                await _hand_over(unit, hold, changeset_id, summary)
            else:
                outcome = Outcome.UNVERIFIED if verified is False else Outcome.STORED
                await _complete(unit, hold, outcome, summary)
            return changeset_id

        return await self._units.run([hold.job_id], work)

    async def retire_earlier(self, hold: Hold, *, comment: str) -> Sequence[str]:
        """Have closed, with ``comment``, what earlier jobs of the run's name have open on its repository, unless the
        job leaves those alone; the addresses of their pages. Safe to repeat.
        """

        async def work(unit: Unit) -> Sequence[str]:
            await _fenced(unit, hold)
            rows = await _STATEMENTS.rows(
                unit.connection, "retire_earlier", run_id=hold.run_id, before=uuid7(), comment=comment
            )
            return [row["url"] or str(row["id"]) for row in rows]

        return await self._units.run([hold.job_id], work)

    async def interrupted(self, hold: Hold) -> None:
        """Give the run back; costs no attempt."""
        await self._requeue(hold, reason="interrupted", error=None, spent=0, delay=timedelta())

    async def retry(self, hold: Hold, *, error: str, delay: timedelta) -> None:
        """End the attempt as failed and queue another, ``delay`` from now at the earliest."""
        await self._requeue(hold, reason="retry", error=error, spent=1, delay=delay)

    async def postpone(self, hold: Hold, *, error: str, delay: timedelta) -> None:
        """Give the run back, not to be taken up before ``delay`` is over; costs no attempt."""
        await self._requeue(hold, reason="interrupted", error=error, spent=0, delay=delay)

    async def _requeue(self, hold: Hold, *, reason: str, error: str | None, spent: int, delay: timedelta) -> None:
        async def work(unit: Unit) -> None:
            await _fenced(unit, hold)
            words = _storable_error(error)
            await _STATEMENTS.execute(
                unit.connection, "requeue", run_id=hold.run_id, error=words, spent=spent, delay=delay
            )
            await _drop_lease(unit, hold)
            unit.count(hold.job_id, active=-1, queued=+1)
            _tell_all(unit, hold, [Draft(EventKind.RUN_REQUEUED, {"reason": reason, "error": words or ""})])

        await self._units.run([hold.job_id], work)

    async def fail(self, hold: Hold, reason: ExitReason, *, error: str, summary: str | None = None) -> None:
        """End the run for good."""

        async def work(unit: Unit) -> None:
            await _fenced(unit, hold)
            words = _storable_error(error)
            await _STATEMENTS.execute(
                unit.connection,
                "fail",
                run_id=hold.run_id,
                exit_reason=reason.value,
                error=words,
                summary=storable(summary) if summary else None,
            )
            await _drop_lease(unit, hold)
            unit.count(hold.job_id, active=-1, failed=+1)
            data = {"state": RunState.FAILED.value, "exitReason": reason.value, "error": words}
            _tell_all(unit, hold, [Draft(EventKind.RUN_FINISHED, data)])

        await self._units.run([hold.job_id], work)

    async def cancelled(self, hold: Hold, *, left: Checkpoint | None = None) -> None:
        """Report that all of the work is gone of a run whose cancel was accepted; else ``LeaseLostError``.

        ``left``: one message of the user's, and what goes with it; stored where the message before it is.
        """

        async def work(unit: Unit) -> None:
            row = await _STATEMENTS.row(unit.connection, "held_to_cancel", run_id=hold.run_id, token=hold.token)
            if row is None:
                words = f"run {hold.run_id} is not held by attempt {hold.attempt} any more, or not to be cancelled"
                raise LeaseLostError(words)
            if left is not None and await checkpointing.leave(unit.connection, hold, left):
                _tell_all(unit, hold, left.events)
            await _drop_lease(unit, hold)
            await cancel_locked(unit, [row])

        await self._units.run([hold.job_id], work)


async def grant_lease(connection: Connection, identifier: UUID, *, kind: str, token: UUID, holder: str) -> None:
    """Make ``holder`` the owner of a run or changeset for 8 s, in the transaction of its claim."""
    await _STATEMENTS.execute(
        connection, "grant_lease", id=identifier, kind=kind, token=token, holder=holder, lease=LEASE
    )


async def _fenced(unit: Unit, hold: Hold) -> None:
    if await _STATEMENTS.row(unit.connection, "held", run_id=hold.run_id, token=hold.token) is None:
        raise _lost(hold)


def _lost(hold: Hold) -> LeaseLostError:
    return LeaseLostError(f"run {hold.run_id} is not held by attempt {hold.attempt} any more, or is to be cancelled")


async def _drop_lease(unit: Unit, hold: Hold) -> None:
    await _STATEMENTS.execute(unit.connection, "drop_lease", id=hold.run_id, token=hold.token)


def _tell_all(unit: Unit, hold: Hold, events: Sequence[Draft]) -> None:
    for draft in events:
        unit.tell(hold.job_id, draft, run_id=hold.run_id, attempt=hold.attempt)


async def _complete(unit: Unit, hold: Hold, outcome: Outcome, summary: str) -> None:
    words = storable(summary)
    await _STATEMENTS.execute(unit.connection, "complete", run_id=hold.run_id, outcome=outcome.value, summary=words)
    await _drop_lease(unit, hold)
    unit.count(hold.job_id, active=-1, completed=+1)
    data = {"state": RunState.COMPLETED.value, "outcome": outcome.value, "summary": told_summary(words)}
    _tell_all(unit, hold, [Draft(EventKind.RUN_FINISHED, data)])


async def _hand_over(unit: Unit, hold: Hold, changeset_id: UUID, summary: str) -> None:
    await _STATEMENTS.execute(unit.connection, "hand_over", run_id=hold.run_id, summary=storable(summary))
    await _drop_lease(unit, hold)
    _tell_all(unit, hold, [Draft(EventKind.RUN_PUBLISHING, {"changesetId": str(changeset_id)})])


async def _insert_changeset(
    connection: Connection,
    hold: Hold,
    changeset_id: UUID,
    commit: Commit,
    *,
    publish: Publish,
    verified: bool | None,
) -> None:
    is_stored = publish is Publish.NONE
    state = ChangesetState.STORED if is_stored else ChangesetState.QUEUED
    await _STATEMENTS.execute(
        connection,
        "insert_changeset",
        id=changeset_id,
        run_id=hold.run_id,
        commit_sha=commit.sha,
        author_name=commit.author_name,
        author_email=commit.author_email,
        commit_time=commit.time,
        commit_message=commit.message,
        patch=commit.patch,
        files=[{**stat, "path": storable(stat["path"])} for stat in commit.files],
        insertions=commit.insertions,
        deletions=commit.deletions,
        publish=(Publish.PULL_REQUEST if is_stored else publish).value,
        verified=verified,
        state=state.value,
        dispatch=0 if is_stored else 1,
    )


def _stored_payload(changeset_id: UUID, commit: Commit) -> dict[str, Any]:
    return {
        "changesetId": str(changeset_id),
        "commitSha": commit.sha,
        "filesChanged": len(commit.files),
        "insertions": commit.insertions,
        "deletions": commit.deletions,
    }


def _storable_error(error: str | None) -> str | None:
    return clipped(storable(error), MOST_LINE_CHARACTERS) if error is not None else None
