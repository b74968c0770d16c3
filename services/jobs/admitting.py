"""Admission: which queued runs take the free slots, decided and written in one short transaction.

Many schedulers may try; an advisory lock lets one at a time. Who goes first is decided in `fairness.py`; a job that
has nothing to start now is left out of sight until it has (`jobs.ready_from`), so that a look costs the same however
long the queue is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from uuid_utils.compat import uuid4, uuid7

from services.contracts.words import Queue
from services.jobs.fairness import Allocation, Candidate, Flow, Load, allocate
from services.jobs.limits import Limits, limits_of
from services.jobs.placing import Place, spread
from services.jobs.scheduling import LEASE, ORDER_LEASE, Dispatched
from services.jobs.states import RunTransition, sources
from services.jobs.unit import SQL, Rung, Unit, Units
from services.runtime.postgres import Connection, Record, Statements

_STATEMENTS = Statements(SQL / "admitting.sql")
# Chosen once, at random; whoever holds this advisory lock is the one that admits. Taken by a statement of its own: what
# the next one sees is then never older than the lock, but holds all that was admitted by whoever had it before.
_ADMISSION_LOCK = 5_821_907_733
_TAKE_TURN = f"SELECT set_config('quarterdeck.admits', pg_try_advisory_xact_lock({_ADMISSION_LOCK})::text, true)"
_WITHOUT_LIMIT = 100
MOST_AT_ONCE = 256
"""Runs that one transaction dispatches at most; it holds their jobs' locks."""
_uuid = lru_cache(maxsize=4 * MOST_AT_ONCE)(UUID)
"""A look names each job twice, and its client with each."""


@dataclass(frozen=True)
class Admitted:
    """``look_again``: more may be admitted at once; without new slots being free, nothing would be."""

    orders: Sequence[Dispatched] = ()
    look_again: bool = False


class Admitting:
    def __init__(self, units: Units, *, most_runs: int) -> None:
        """``most_runs``: the fleet's limit where none is set in Postgres."""
        self._units = units
        self._most_runs = most_runs

    async def admit(self) -> Admitted:
        """Dispatch queued runs while slots are free. Raises ``StoreUnavailableError``."""
        admitted = await self._units.database.in_transaction(self._admit, first=_TAKE_TURN)
        if admitted.orders:
            await self._units.ring(Rung.EVENTS)
        return admitted

    async def _admit(self, connection: Connection) -> Admitted:
        seen = await _STATEMENTS.row(connection, "look", alive=LEASE, fleet=self._most_runs, most=MOST_AT_ONCE)
        assert seen is not None
        if not seen["candidates"]:
            return Admitted()  # nothing to admit, no slot, or another scheduler is at it
        candidates = _rows(seen["candidates"])
        wanted = allocate(
            [_candidate(row) for row in candidates],
            load=_load(_rows(seen["load"])),
            limits=limits_of(_rows(seen["limits"])),
            free=seen["free"],
            clocks=_clocks(candidates),
        )
        unit = await _unit(connection, _rows(seen["locked"]), wanted)
        admission = _Admission(unit, wanted, [Place(**row) for row in _rows(seen["agents"])])
        orders = await admission.dispatch()
        return Admitted(orders, look_again=admission.left_some or len(orders) == MOST_AT_ONCE)

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


class _Admission:
    """The runs of the allocated jobs, chosen under the jobs' locks."""

    def __init__(self, unit: Unit, wanted: Allocation, agents: Sequence[Place]) -> None:
        self._unit = unit
        self._wanted = wanted
        self._agents = agents
        self.left_some = False
        """Some slots were not filled by whom they were meant for."""

    async def dispatch(self) -> list[Dispatched]:
        counts = {
            job_id: self._within_max_parallel(job_id) for job_id in self._wanted.runs if job_id in self._unit.jobs
        }
        runs = sum(counts.values())
        rows = await _STATEMENTS.rows(
            self._unit.connection,
            "dispatch",
            job_ids=list(counts),
            counts=list(counts.values()),
            tags=[self._wanted.tags[job_id] for job_id in counts],
            sources=sources(RunTransition.ADMIT),
            agents=spread(self._agents, runs),
            tokens=[uuid4() for _ in range(runs)],
            lease=ORDER_LEASE,
            event_ids=[uuid7() for _ in range(runs)],
            job_event_ids=[uuid7() for _ in counts],
            **_ticks(self._wanted.clocks),
        )
        await self._hide_what_has_nothing(rows, counts)
        places = {job_id: place for place, job_id in enumerate(counts)}
        rows.sort(key=lambda row: (places[row["job_id"]], row["position"]))  # the order in which they are to begin
        return [Dispatched(row["id"], row["job_id"], row["agent"], row["lease_token"]) for row in rows]

    def _within_max_parallel(self, job_id: UUID) -> int:
        job = self._unit.jobs[job_id]
        wanted = self._wanted.runs[job_id]
        if job.cancel_requested:
            return 0
        return wanted if job.max_parallel is None else max(0, min(wanted, job.max_parallel - job.active))

    async def _hide_what_has_nothing(self, dispatched: Sequence[Record], counts: dict[UUID, int]) -> None:
        """Jobs that could not give what was asked of them are not asked again before they can."""
        started = Counter(row["job_id"] for row in dispatched)
        short = [job_id for job_id, count in counts.items() if started[job_id] < count]
        if short:
            self.left_some = True
            await _STATEMENTS.execute(self._unit.connection, "hide", ids=short)


def _rows(aggregated: str | None) -> list[dict[str, Any]]:
    """What `json_agg` made of some rows; of none it makes null."""
    rows: list[dict[str, Any]] = orjson.loads(aggregated) if aggregated else []
    return rows


async def _unit(connection: Connection, locked: Sequence[Mapping[str, Any]], wanted: Allocation) -> Unit:
    """Over the jobs of ``wanted``; ``locked``: those that are locked already."""
    if not locked:
        return await Unit.lock(connection, list(wanted.runs))
    unit = Unit(connection)
    for row in locked:
        ids = {"job_id": _uuid(row["job_id"]), "client_id": _uuid(row["client_id"])}
        if ids["job_id"] in wanted.runs:
            unit.add({**row, **ids})
    return unit


def _candidate(row: Mapping[str, Any]) -> Candidate:
    return Candidate(
        job_id=_uuid(row["id"]),
        client_id=_uuid(row["client_id"]),
        client=row["client"],
        queue=Queue(row["queue"]),
        priority=row["priority"],
        tag=row["fair_tag"],
        available=row["available"],
    )


def _load(rows: Sequence[Mapping[str, Any]]) -> Load:
    by_queue: Counter[Queue] = Counter()
    by_client: Counter[UUID] = Counter()
    for row in rows:
        by_queue[Queue(row["queue"])] += row["runs"]
        by_client[_uuid(row["client_id"])] += row["runs"]
    return Load(by_queue, by_client)


def _clocks(rows: Sequence[Mapping[str, Any]]) -> dict[Flow, int]:
    return {(Queue(row["queue"]), _uuid(row["client_id"])): row["clock"] for row in rows}


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
