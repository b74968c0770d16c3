"""The scheduler's side of a run once it is under way: recall, lose, end what is overdue. Each method is one idempotent
transaction over what a bounded query found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.contracts.words import EventKind, ExitReason, RunState
from services.jobs.states import RunTransition, sources
from services.jobs.unit import SQL, Draft, Unit, Units
from services.runtime.postgres import Connection, Record, Statements

STATEMENTS = Statements(SQL / "scheduling.sql")
LEASE = timedelta(seconds=8)
"""How long a run or changeset stays its holder's without a renewal."""
_LIVES = timedelta(seconds=6)
"""A process whose heartbeat was seen within it: it cannot have died of what it was given a lease ago."""
MAX_TIMES_LOST = 5
DEADLINE_GRACE = timedelta(seconds=10)
"""An agent ends a run at its deadline by itself; only after this does the sweep."""


@dataclass(frozen=True)
class Dispatched:
    """A run that was given to an agent, which is to be told."""

    run_id: UUID
    job_id: UUID
    agent: str
    """The name of its node."""
    token: UUID
    """Of the lease that was granted with it."""
    beat: int = 0
    """The agent's heartbeat that came before it."""
    work: bytes | None = None
    """What there is to know of the run, as JSON; None: its agent has to claim it."""


class Scheduling:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def forget_old(self) -> None:
        """Delete what nobody asks for any more: dead nodes, spent Idempotency-Keys, old deliveries of webhooks,
        comments that were posted, forges' limits for credentials that nobody uses, removed installations of Apps, what
        lost attempts had reserved, what was said to nobody.
        """

        async def work(connection: Connection) -> None:
            await STATEMENTS.execute(connection, "forget_nodes")
            await STATEMENTS.execute(connection, "forget_keys")
            await STATEMENTS.execute(connection, "forget_deliveries")
            await STATEMENTS.execute(connection, "forget_comments")
            await STATEMENTS.execute(connection, "forget_paces")
            await STATEMENTS.execute(connection, "forget_installations")
            await STATEMENTS.execute(connection, "forget_reservations")
            await STATEMENTS.execute(connection, "forget_unheard")

        await self._units.database.in_transaction(work)

    async def recall_orders(self, orders: Sequence[Dispatched]) -> None:
        """Nobody has heard these orders: the next sweep takes the runs back. Raises ``StoreUnavailableError``."""

        async def work(connection: Connection) -> None:
            await STATEMENTS.execute(
                connection,
                "recall_orders",
                ids=[order.run_id for order in orders],
                tokens=[order.token for order in orders],
            )

        await self._units.database.in_statement(work)

    async def avoid(self, agent: str) -> None:
        """Give ``agent`` nothing before it says again how many places it has. Raises ``StoreUnavailableError``."""

        async def work(connection: Connection) -> None:
            await STATEMENTS.execute(connection, "avoid", agent=agent)

        await self._units.database.in_statement(work)

    async def recall(self, *, overdue: timedelta) -> int:
        """Queue again what was dispatched over ``overdue`` ago and claimed by nobody; return how many.

        Those whose queue deadline has passed by now fail at once: admission would send the next order before a sweep
        came by.
        """
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
                unit.count(row["job_id"], active=-1, queued=+1)
                _tell(unit, row, EventKind.RUN_REQUEUED, {"reason": "unclaimed"})
                if row["is_overdue"]:
                    await _fail_overdue(unit, row)
            return len(rows)

        return await self._units.run(found.job_ids, work) if found.ids else 0

    async def lose_expired(self, *, connected_for: timedelta) -> int:
        """Take runs from agents that stopped renewing: queued again, cancelled, or failed the fifth time. Those that
        their agent never heard of are queued as they were, or cancelled.

        ``connected_for``: how long Postgres has been reachable from here.
        """
        found = await self._found("expired_runs", lease=LEASE)

        async def work(unit: Unit) -> int:
            rows = await STATEMENTS.rows(
                unit.connection,
                "take_expired",
                ids=found.ids,
                sources=sources(RunTransition.LOSE),
                lease=LEASE,
                lives=_LIVES,
                connected_for=connected_for,
            )
            fates: dict[str, list[Record]] = defaultdict(list)
            for row in rows:
                fates[_fate(row)].append(row)
            await STATEMENTS.execute(unit.connection, "drop_leases", ids=[row["id"] for row in rows])
            await _requeue_lost(unit, fates["requeue"])
            await _requeue_unheard(unit, fates["unheard"])
            await _fail_lost(unit, fates["fail"])
            await cancel_locked(unit, fates["cancel"])
            return len(rows)

        return await self._units.run(found.job_ids, work) if found.ids else 0

    async def end_overdue(self) -> int:
        """Fail runs that were queued, or worked on, for longer than their job allows; return how many."""
        found = await self._found("overdue", grace=DEADLINE_GRACE)

        async def work(unit: Unit) -> int:
            rows = await STATEMENTS.rows(
                unit.connection,
                "take_overdue",
                ids=found.ids,
                grace=DEADLINE_GRACE,
                sources=sources(RunTransition.FAIL),
            )
            for row in rows:
                await _fail_overdue(unit, row)
            await STATEMENTS.execute(unit.connection, "drop_leases", ids=[row["id"] for row in rows])
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
    if row["is_unheard"]:
        return "unheard"
    return "fail" if row["counts"] and row["times_lost"] + 1 >= MAX_TIMES_LOST else "requeue"


async def _requeue_lost(unit: Unit, rows: Sequence[Record]) -> None:
    ids, counts = [row["id"] for row in rows], [row["counts"] for row in rows]
    await STATEMENTS.execute(unit.connection, "requeue_lost", ids=ids, counts=counts)
    for row in rows:
        unit.count(row["job_id"], active=-1, queued=+1)
        _tell(unit, row, EventKind.RUN_REQUEUED, {"reason": "lost"})


async def _requeue_unheard(unit: Unit, rows: Sequence[Record]) -> None:
    """Those whose queue deadline has passed by now fail at once: admission would be there before the next sweep."""
    for row in await STATEMENTS.rows(unit.connection, "requeue_unheard", ids=[row["id"] for row in rows]):
        unit.count(row["job_id"], active=-1, queued=+1)
        _tell(unit, row, EventKind.RUN_REQUEUED, {"reason": "unclaimed"})
        if row["is_overdue"]:
            await _fail_overdue(unit, row)


async def _fail_lost(unit: Unit, rows: Sequence[Record]) -> None:
    error = f"its agent was lost {MAX_TIMES_LOST} times"
    await STATEMENTS.execute(unit.connection, "fail_lost", ids=[row["id"] for row in rows], error=error)
    for row in rows:
        unit.count(row["job_id"], active=-1, failed=+1)
        data = {"state": RunState.FAILED.value, "exitReason": ExitReason.LOST.value, "error": error}
        _tell(unit, row, EventKind.RUN_FINISHED, data)


async def _fail_overdue(unit: Unit, row: Record) -> None:
    if row["state"] == RunState.QUEUED:
        reason, error = ExitReason.QUEUE_TIMED_OUT, f"not started within {row['queue_seconds']} s"
    else:
        # Its agent should have ended it by itself at the deadline; the lease goes with it.
        reason, error = ExitReason.TIMED_OUT, f"not finished within {row['run_seconds']} s"
    await STATEMENTS.execute(unit.connection, "fail_run", id=row["id"], exit_reason=reason.value, error=error)
    unit.count(row["job_id"], active=0 if row["state"] == RunState.QUEUED else -1, failed=+1)
    data = {"state": RunState.FAILED.value, "exitReason": reason.value, "error": error}
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
