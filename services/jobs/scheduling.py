"""The scheduler's side of a run: admit, recall, lose. Each method is one idempotent transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.contracts.words import EventKind, ExitReason, Queue, RunState
from services.jobs.states import RunTransition, sources
from services.jobs.unit import SQL, Draft, Unit, Units
from services.runtime.postgres import Connection, Record, Statements

STATEMENTS = Statements(SQL / "scheduling.sql")
LEASE = timedelta(seconds=8)
"""How long a run or changeset stays its holder's without a renewal."""
MAX_TIMES_LOST = 5
# Chosen once, at random; whoever holds this advisory lock is the one that admits.
_ADMISSION_LOCK = 5_821_907_733


@dataclass(frozen=True)
class Dispatched:
    """A work order that is to be sent."""

    run_id: UUID
    job_id: UUID
    queue: Queue
    dispatch: int


class Scheduling:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def admit(self, queue: Queue, *, slots: int) -> list[Dispatched]:
        """Dispatch queued runs of ``queue`` while fewer than ``slots`` hold a slot."""

        async def work(connection: Connection) -> list[Dispatched]:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _ADMISSION_LOCK):
                return []  # another scheduler is at it, or will be rung as we were
            free = slots - await STATEMENTS.value(connection, "slots_held", queue=queue.value)
            if free <= 0:
                return []
            rows = await STATEMENTS.rows(connection, "admissible", queue=queue.value, free=free)
            unit = await Unit.lock(connection, [row["job_id"] for row in rows])
            dispatched = await _dispatch(unit, [row["id"] for row in rows])
            await unit.settle()
            return dispatched

        dispatched = await self._units.database.in_transaction(work)
        if dispatched:
            await self._units.ring()
        return dispatched

    async def live_capacity(self) -> int:
        """How many runs the living agents can hold in all."""
        async with self._units.database.connection() as connection:
            capacity: int = await STATEMENTS.value(connection, "live_capacity", alive=LEASE)
        return capacity

    async def forget_old(self) -> None:
        """Delete what nobody asks for any more: dead nodes, spent Idempotency-Keys."""

        async def work(connection: Connection) -> None:
            await STATEMENTS.execute(connection, "forget_nodes")
            await STATEMENTS.execute(connection, "forget_keys")

        await self._units.database.in_transaction(work)

    async def recall(self, *, overdue: timedelta) -> int:
        """Queue again what was dispatched over ``overdue`` ago and claimed by nobody; return how many."""
        found = await self._found("unclaimed", overdue=overdue)

        async def work(unit: Unit) -> int:
            rows = await STATEMENTS.rows(
                unit.connection,
                "recall",
                ids=found.ids,
                overdue=overdue,
                sources=sources(RunTransition.RECALL),
            )
            for row in rows:
                unit.count(row["job_id"], active=-1)
                _tell(unit, row, EventKind.RUN_REQUEUED, {"reason": "unclaimed"})
            return len(rows)

        return await self._units.run(found.job_ids, work) if found.ids else 0

    async def lose_expired(self) -> int:
        """Take runs from agents that stopped renewing: queued again, cancelled, or failed the fifth time."""
        found = await self._found("expired_runs", lease=LEASE)

        async def work(unit: Unit) -> int:
            rows = await STATEMENTS.rows(
                unit.connection, "take_expired", ids=found.ids, sources=sources(RunTransition.LOSE)
            )
            fates: dict[str, list[Record]] = defaultdict(list)
            for row in rows:
                fates[_fate(row)].append(row)
            await STATEMENTS.execute(unit.connection, "drop_leases", ids=[row["id"] for row in rows])
            await _requeue_lost(unit, fates["requeue"])
            await _fail_lost(unit, fates["fail"])
            await cancel_locked(unit, fates["cancel"])
            return len(rows)

        return await self._units.run(found.job_ids, work) if found.ids else 0

    async def _found(self, statement: str, **parameters: Any) -> Found:
        async with self._units.database.connection() as connection:
            rows = await STATEMENTS.rows(connection, statement, **parameters)
        return Found([row["id"] for row in rows], [row["job_id"] for row in rows])


@dataclass(frozen=True)
class Found:
    """What a sweep saw without any lock; the transaction looks again."""

    ids: list[UUID]
    job_ids: list[UUID]


def _fate(row: Record) -> str:
    if row["cancel_requested"]:
        return "cancel"
    return "fail" if row["times_lost"] + 1 >= MAX_TIMES_LOST else "requeue"


async def _dispatch(unit: Unit, ids: list[UUID]) -> list[Dispatched]:
    rows = await STATEMENTS.rows(unit.connection, "dispatch", ids=ids, sources=sources(RunTransition.ADMIT))
    for row in rows:
        unit.count(row["job_id"], active=+1)
        _tell(unit, row, EventKind.RUN_DISPATCHED, {"dispatch": row["dispatch"]})
    return [Dispatched(row["id"], row["job_id"], Queue(row["queue"]), row["dispatch"]) for row in rows]


async def _requeue_lost(unit: Unit, rows: Sequence[Record]) -> None:
    await STATEMENTS.execute(unit.connection, "requeue_lost", ids=[row["id"] for row in rows])
    for row in rows:
        unit.count(row["job_id"], active=-1)
        _tell(unit, row, EventKind.RUN_REQUEUED, {"reason": "lost"})


async def _fail_lost(unit: Unit, rows: Sequence[Record]) -> None:
    error = f"its agent was lost {MAX_TIMES_LOST} times"
    await STATEMENTS.execute(unit.connection, "fail_lost", ids=[row["id"] for row in rows], error=error)
    for row in rows:
        unit.count(row["job_id"], active=-1, failed=+1)
        data = {"state": RunState.FAILED.value, "exitReason": ExitReason.LOST.value, "error": error}
        _tell(unit, row, EventKind.RUN_FINISHED, data)


async def cancel_locked(unit: Unit, rows: Sequence[Record]) -> None:
    """Cancel runs that this unit has locked (id, job_id, attempt, state) and that nobody works on any more."""
    ids = [row["id"] for row in rows]
    await STATEMENTS.execute(unit.connection, "cancel_runs", ids=ids)
    await STATEMENTS.execute(unit.connection, "unqueue_changesets", run_ids=ids)
    for row in rows:
        held = row.get("state", RunState.RUNNING.value) != RunState.QUEUED.value
        unit.count(row["job_id"], active=-1 if held else 0, cancelled=+1)
        _tell(unit, row, EventKind.RUN_FINISHED, {"state": RunState.CANCELLED.value})


def _tell(unit: Unit, row: Record, kind: EventKind, data: dict[str, Any]) -> None:
    unit.tell(row["job_id"], Draft(kind, data), run_id=row["id"], attempt=row["attempt"])
