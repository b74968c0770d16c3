"""Admission: which queued runs take the free slots. Looked at without a lock, decided in `fairness.py`, and written in
one short transaction, which writes nothing where another scheduler is at it or has admitted in between.

A job that has nothing to start now is left out of sight until it has (`jobs.ready_from`), so that a look costs the same
however long the queue is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from uuid import UUID

import orjson

from services.contracts.words import Queue
from services.jobs.fairness import Allocation, Candidate, Flow, Load
from services.jobs.limits import Limits, limits_of
from services.jobs.looking import Seen
from services.jobs.placing import Place, spread
from services.jobs.scheduling import LEASE, Dispatched
from services.jobs.states import RunTransition, sources
from services.jobs.unit import SQL, Rung, Unit, Units
from services.runtime.ids import as_uuid, uuid4, uuid7
from services.runtime.postgres import Connection, Record, Statements

_STATEMENTS = Statements(SQL / "admitting.sql")
# Chosen once, at random; whoever holds this advisory lock is the one that admits.
_ADMISSION_LOCK = 5_821_907_733
_WITHOUT_LIMIT = 100
MOST_AT_ONCE = 256
"""Runs that one transaction dispatches at most; it holds their jobs' locks."""
_MOST_AT_FIRST = 64
"""Where nobody works yet: agents begin with these while the next are still being given away."""
_MOST_SEEN = 2 * MOST_AT_ONCE
"""Runs that one look is enough for: the second half waits for no other."""
_queue = cache(Queue)
_MOST_WORK_BYTES = 3_500
"""Of what an order says of its run: the orders of one transaction are one message, of 1 MiB at most."""


@dataclass(frozen=True)
class Admitted:
    """``look_again``: more may be admitted at once; without new slots being free, nothing would be. ``short``: jobs
    that could not give what was asked of them, to be hidden once the orders are on their way.
    """

    orders: Sequence[Dispatched] = ()
    look_again: bool = False
    short: Sequence[UUID] = ()


class Admitting:
    def __init__(self, units: Units, *, most_runs: int) -> None:
        """``most_runs``: the fleet's limit where none is set in Postgres."""
        self._units = units
        self._most_runs = most_runs
        self._left: Seen | None = None
        """What is left of the last look: jobs that wait, and room for them, or else room that nobody waits for."""

    async def admit(self, newcomer: Candidate | None = None, *, anew: bool = False) -> Admitted:
        """Dispatch queued runs while slots are free, ``MOST_AT_ONCE`` at most. Raises ``StoreUnavailableError``.

        ``newcomer``: a job that was submitted just now, and is all that has changed: where nobody waited before it and
        all of it may be dispatched at once, that takes no other look. ``anew``: jobs have come since the last look, and
        may go before those that it saw.
        """
        if (known := self._known(newcomer, anew=anew)) is not None:
            wanted = known.shared(most=_most(known))
            if wanted.runs and (newcomer is None or wanted.runs.get(newcomer.job_id) == newcomer.available):
                admitted = await self._give(known, wanted)
                if admitted is not None and admitted.orders:
                    # What has come since that look was not seen by it.
                    return replace(admitted, look_again=admitted.look_again or newcomer is None)
        seen = await self._look()
        wanted = seen.shared(most=_most(seen))
        if not wanted.runs:
            self._left = None if seen.candidates else seen
            return Admitted()
        return await self._give(seen, wanted) or Admitted(look_again=True)

    def _known(self, newcomer: Candidate | None, *, anew: bool) -> Seen | None:
        """Who may be given something without another look, and of what."""
        left, self._left = self._left, None
        if left is None or not left.is_fresh:
            return None
        if newcomer is not None:
            return replace(left, candidates=[newcomer]) if not left.candidates else None
        return left if left.candidates and not anew else None

    async def _give(self, seen: Seen, wanted: Allocation) -> Admitted | None:
        """Give the runs away; None where what was ``seen`` is not what there is any more."""
        rows = await self._dispatch(wanted, seen)
        if rows[0]["is_busy"]:
            return Admitted()  # whoever is at it hears all bells, too
        if not rows[0]["has_turn"]:
            return None
        orders = _orders(rows, wanted, seen)
        if orders:
            await self._units.ring(Rung.EVENTS)
        started = Counter(order.job_id for order in orders)
        short = [job_id for job_id, count in wanted.runs.items() if started[job_id] < count]
        is_full = len(orders) == _most(seen)
        if not short:
            left = seen.less(wanted, Counter(order.agent for order in orders))
            self._left = left if not left.candidates or (is_full and left.free > 0) else None
        return Admitted(orders, look_again=bool(short) or is_full, short=short)

    async def _look(self) -> Seen:
        async def work(connection: Connection) -> Record | None:
            return await _STATEMENTS.row(connection, "look", alive=LEASE, fleet=self._most_runs, most=_MOST_SEEN)

        row = await self._units.database.in_statement(work)
        assert row is not None
        return _seen(row)

    async def _dispatch(self, wanted: Allocation, seen: Seen) -> Sequence[Record]:
        """A row for each run that begins; one without a run where there is none."""
        runs = sum(wanted.runs.values())
        agents = spread(seen.places, runs)
        names = set(agents)
        used = [place for place in seen.places if place.name in names]
        tokens, event_ids = [uuid4() for _ in agents], [uuid7() for _ in agents]
        job_event_ids = [uuid7() for _ in wanted.runs]

        async def work(connection: Connection) -> Sequence[Record]:
            return await _STATEMENTS.rows(
                connection,
                "dispatch",
                admissions=seen.admissions,
                lock=_ADMISSION_LOCK,
                places=[place.name for place in used],
                capacities=[place.capacity for place in used],
                alive=LEASE,
                job_ids=list(wanted.runs),
                counts=list(wanted.runs.values()),
                tags=[wanted.tags[job_id] for job_id in wanted.runs],
                sources=sources(RunTransition.ADMIT),
                agents=agents,
                tokens=tokens,
                lease=LEASE,
                most_work=_MOST_WORK_BYTES,
                event_ids=event_ids,
                job_event_ids=job_event_ids,
                **_ticks(wanted.clocks),
            )

        return await self._units.database.in_statement(work)

    async def hide(self, short: Sequence[UUID]) -> None:
        """Jobs that could not give what was asked of them are not asked again before they can."""
        if not short:
            return

        async def work(connection: Connection) -> None:
            await Unit.lock(connection, short)  # so that whoever has queued one of their runs meanwhile is seen
            await _STATEMENTS.execute(connection, "hide", ids=short)

        await self._units.database.in_transaction(work)

    async def ripen(self) -> int:
        """Bring jobs whose time has come before admission's eyes; return how many."""

        async def work(connection: Connection) -> int:
            return len(await _STATEMENTS.rows(connection, "ripen"))

        return await self._units.database.in_transaction(work)

    async def release_held(self) -> int:
        """Let runs go on whose repository or branch has room again; return how many."""
        async with self._units.database.connection() as connection:
            limits = limits_of(await _STATEMENTS.rows(connection, "repository_limits"))
            held = await _STATEMENTS.rows(connection, "held_repositories")
            rooms = {row["hash"]: room for row in held if (room := _room(row, limits)) > 0}
            found = await _STATEMENTS.rows(connection, "held_runs", hashes=list(rooms), rooms=list(rooms.values()))

        async def work(unit: Unit) -> int:
            rows = await _STATEMENTS.rows(unit.connection, "release", ids=[row["id"] for row in found])
            for row in rows:
                unit.count(row["job_id"], queued=+1)
            return len(rows)

        return await self._units.run([row["job_id"] for row in found], work) if found else 0


def _most(seen: Seen) -> int:
    """Runs to be given away at once."""
    return MOST_AT_ONCE if any(seen.load.by_queue.values()) else _MOST_AT_FIRST


def _seen(row: Record) -> Seen:
    columns = ("ids", "client_ids", "clients", "queues", "priorities", "tags", "available", "clocks")
    ids, client_ids, clients, names, priorities, tags, available, clocks = (row[column] or () for column in columns)
    queues = [_queue(name) for name in names]
    candidates = zip(ids, client_ids, clients, queues, priorities, tags, available, strict=True)
    return Seen(
        admissions=row["admissions"],
        free=row["free"],
        places=[Place(**place) for place in _rows(row["agents"])],
        load=_load(_rows(row["load"])),
        limits=limits_of(_rows(row["limits"])),
        candidates=[Candidate(*fields) for fields in candidates],
        clocks=dict(zip(zip(queues, client_ids, strict=True), clocks, strict=True)),
    )


def _orders(rows: Sequence[Record], wanted: Allocation, seen: Seen) -> list[Dispatched]:
    """In the order in which they are to begin."""
    places = {job_id: place for place, job_id in enumerate(wanted.runs)}
    given = sorted(
        (row for row in rows if row["id"] is not None), key=lambda row: (places[row["job_id"]], row["position"])
    )
    beats = {place.name: place.beat for place in seen.places}
    return [
        Dispatched(
            row["id"], row["job_id"], row["agent"], row["lease_token"], beats[row["agent"]], _bounded(row["work"])
        )
        for row in given
    ]


def _bounded(work: str | None) -> bytes | None:
    encoded = work.encode() if work is not None else None
    return encoded if encoded is not None and len(encoded) <= _MOST_WORK_BYTES else None


def _rows(aggregated: str | None) -> list[dict[str, Any]]:
    """What ``json_agg`` made of some rows; of none it makes null."""
    rows: list[dict[str, Any]] = orjson.loads(aggregated) if aggregated else []
    return rows


def _load(rows: Sequence[Mapping[str, Any]]) -> Load:
    by_queue: Counter[Queue] = Counter()
    by_client: Counter[UUID] = Counter()
    for row in rows:
        by_queue[_queue(row["queue"])] += row["runs"]
        by_client[as_uuid(row["client_id"])] += row["runs"]
    return Load(by_queue, by_client)


def _ticks(clocks: Mapping[Flow, int]) -> dict[str, list[object]]:
    return {
        "clock_queues": [queue.value for queue, _ in clocks],
        "clock_clients": [client_id for _, client_id in clocks],
        "clocks": list(clocks.values()),
    }


def _room(row: Record, limits: Limits) -> int:
    """How many more runs may hold a slot on the repository; where that is without limit, a branch was busy."""
    limit = limits.of_repository(row["repository"])
    active: int = row["active"]
    return _WITHOUT_LIMIT if limit is None else limit - active
