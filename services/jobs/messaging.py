"""Conversations: what a user says to a run, how a run waits for it without a slot, and how it goes on or ends.

A run that waits is just its checkpoint. Whoever parks it locks the run and does so only if nothing is unread, and
whoever says something locks the same row: no message is slept over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.contracts import rest
from services.contracts.text import storable
from services.contracts.words import EventKind, JobKind, Outcome, RunState
from services.jobs.errors import LeaseLostError, NotFoundError, NotWaitingError
from services.jobs.eventlog import told_summary
from services.jobs.models import Client, Hold
from services.jobs.states import FINAL_RUN_STATES, RunTransition, sources
from services.jobs.unit import SQL, Draft, Unit, Units
from services.runtime.ids import uuid7
from services.runtime.postgres import Record, Statements

_STATEMENTS = Statements(SQL / "messaging.sql")


@dataclass(frozen=True)
class InboxMessage:
    """One thing that the user said. ``completes``: ends the conversation instead of going on with it."""

    number: int
    text: str
    interrupt: bool
    completes: bool


class Messaging:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def send(self, client: Client, job_id: UUID, wanted: rest.MessageRequest) -> rest.Message:
        """Say something to a run of a task. A run that waits is queued again at once.

        Raises ``NotFoundError``, ``NotWaitingError``.
        """
        said = uuid7()

        async def work(unit: Unit) -> rest.Message:
            run = _only(await _runs(unit, client, job_id, wanted.run_id))
            row = await _say(unit, run, said, "message", wanted.text, interrupt=wanted.interrupt)
            return rest.Message(
                run_id=run["id"],
                number=row["number"],
                text=wanted.text,
                interrupt=wanted.interrupt,
                created_at=row["created_at"],
                read_at=None,
            )

        return await self._units.run([job_id], work)

    async def complete(self, client: Client, job_id: UUID, wanted: rest.CompleteRequest) -> list[UUID]:
        """End the conversation of one run, or of all that are not final; return which.

        One that waits is completed at once, one that an agent holds at the end of its turn.
        Raises ``NotFoundError``, ``NotWaitingError``.
        """

        async def work(unit: Unit) -> list[UUID]:
            runs = await _runs(unit, client, job_id, wanted.run_id)
            waiting = [run for run in runs if run["state"] == RunState.WAITING]
            await _end_waiting(unit, waiting, "completed by its user")
            for run in runs:
                if run["state"] != RunState.WAITING:
                    await _say(unit, run, uuid7(), "complete", "", interrupt=False)
            return [run["id"] for run in runs]

        return await self._units.run([job_id], work)

    async def unread(self, hold: Hold) -> list[InboxMessage]:
        """What the user has said and the transcript does not have yet, in order."""
        async with self._units.database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "unread", run_id=hold.run_id)
        return [InboxMessage(row["number"], row["body"], row["interrupt"], row["kind"] == "complete") for row in rows]

    async def park(self, hold: Hold, *, summary: str) -> bool:
        """Let the run wait for its user, giving up the lease; False where something unread is there already.

        ``summary``: what the model said last, which stands if its user says nothing more.
        Raises ``LeaseLostError``.
        """

        async def work(unit: Unit) -> bool:
            parked = await _STATEMENTS.row(
                unit.connection,
                "park",
                run_id=hold.run_id,
                token=hold.token,
                summary=storable(summary),
                sources=sources(RunTransition.PARK),
            )
            if parked is None:
                raise LeaseLostError(f"run {hold.run_id} is not held by attempt {hold.attempt} any more")
            if parked["has_unread"]:
                return False
            await _STATEMENTS.execute(unit.connection, "drop_lease", run_id=hold.run_id, token=hold.token)
            waiting = Draft(EventKind.RUN_WAITING, {"summary": told_summary(storable(summary))})
            unit.tell(hold.job_id, waiting, run_id=hold.run_id, attempt=hold.attempt)
            return True

        return await self._units.run([hold.job_id], work)

    async def wake(self) -> int:
        """Queue again runs that wait although something unread is there; return how many."""
        async with self._units.database.connection() as connection:
            found = await _STATEMENTS.rows(connection, "sleeping_over")

        async def work(unit: Unit) -> int:
            rows = await _STATEMENTS.rows(unit.connection, "take_waiting", ids=[row["id"] for row in found])
            await _wake(unit, [row for row in rows if row["has_unread"]])
            return len(rows)

        return await self._units.run([row["job_id"] for row in found], work) if found else 0

    async def end_idle(self) -> int:
        """Complete conversations whose user has been silent past the limit; return how many."""
        async with self._units.database.connection() as connection:
            found = await _STATEMENTS.rows(connection, "idle")

        async def work(unit: Unit) -> int:
            rows = await _STATEMENTS.rows(unit.connection, "take_waiting", ids=[row["id"] for row in found])
            idle = [row for row in rows if row["is_idle"] and not row["has_unread"]]
            await _end_waiting(unit, idle, "its user said nothing for longer than the idle limit")
            return len(idle)

        return await self._units.run([row["job_id"] for row in found], work) if found else 0


async def _runs(unit: Unit, client: Client, job_id: UUID, run_id: UUID | None) -> list[Record]:
    """The job's runs that can still hear something, locked."""
    job = unit.jobs.get(job_id)
    if job is None or job.client_id != client.id:
        raise NotFoundError("job", job_id)
    rows = await _STATEMENTS.rows(unit.connection, "lock_conversations", job_id=job_id, run_id=run_id)
    if run_id is not None and not rows:
        raise NotFoundError("run", run_id)
    if any(row["kind"] != JobKind.TASK for row in rows):
        raise NotWaitingError("only a task holds a conversation; this is a code job")
    left = [row for row in rows if RunState(row["state"]) not in FINAL_RUN_STATES and not row["cancel_requested"]]
    if not left:
        raise NotWaitingError("the conversation has ended: nobody can hear this any more")
    return left


def _only(runs: Sequence[Record]) -> Record:
    if len(runs) > 1:
        raise NotWaitingError("the job has several runs: name one as runId")
    return runs[0]


async def _say(unit: Unit, run: Record, said: UUID, kind: str, text: str, *, interrupt: bool) -> Record:
    """``said``: the same when the unit is run again, after a commit that nobody heard of."""
    words = {"id": said, "run_id": run["id"], "kind": kind, "body": storable(text), "interrupt": interrupt}
    row = await _STATEMENTS.row(unit.connection, "say", **words)
    if row is None:
        row = await _STATEMENTS.row(unit.connection, "said", id=said)
        assert row is not None
        return row
    if kind == "message":
        draft = Draft(EventKind.RUN_MESSAGE, {"number": row["number"], "text": text, "interrupt": interrupt})
        unit.tell(run["job_id"], draft, run_id=run["id"], attempt=run["attempt"])
    if run["state"] == RunState.WAITING:
        await _wake(unit, [run])
    return row


async def _wake(unit: Unit, runs: Sequence[Record]) -> None:
    await _STATEMENTS.execute(
        unit.connection, "wake", ids=[run["id"] for run in runs], sources=sources(RunTransition.WAKE)
    )
    for run in runs:
        unit.count(run["job_id"], active=-1, queued=+1)
        unit.tell(
            run["job_id"],
            Draft(EventKind.RUN_REQUEUED, {"reason": "message"}),
            run_id=run["id"],
            attempt=run["attempt"],
        )


async def _end_waiting(unit: Unit, runs: Sequence[Record], why: str) -> None:
    await _STATEMENTS.execute(unit.connection, "complete_waiting", ids=[run["id"] for run in runs], why=why)
    for run in runs:
        unit.count(run["job_id"], active=-1, completed=+1)
        words = told_summary(run["summary"] or why)
        data = {"state": RunState.COMPLETED.value, "outcome": Outcome.ANSWERED.value, "summary": words}
        unit.tell(run["job_id"], Draft(EventKind.RUN_FINISHED, data), run_id=run["id"], attempt=run["attempt"])
