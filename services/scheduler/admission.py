"""Admission: lets queued runs take free slots, and tells the agents that got them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import WorkOrder, WorkOrders
from services.jobs.admitting import Admitting
from services.jobs.fairness import Candidate
from services.jobs.scheduling import Dispatched, Scheduling
from services.runtime.batching import Rest
from services.runtime.jetstream import Bus, BusUnavailableError, NobodyListensError
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("scheduler.admission")

_ROUNDS = 20
"""Before the loop's other duties have their turn."""
_REST = Rest(timedelta(milliseconds=20))


class Admission:
    def __init__(self, admitting: Admitting, scheduling: Scheduling, bus: Bus) -> None:
        self._admitting = admitting
        self._scheduling = scheduling
        self._bus = bus
        self._telling: set[asyncio.Task[None]] = set()
        self._newcomers: list[Candidate] = []
        self._must_look = False
        self.looked_at = 0.0
        """When a round began that was for whatever there may be; monotonic seconds."""

    def expect(self, newcomer: Candidate) -> None:
        """The next round is for ``newcomer``, if nothing else is to be looked at by then."""
        self._newcomers.append(newcomer)

    def look(self) -> None:
        """The next round is for whatever there may be."""
        self._must_look = True

    def _only_newcomer(self) -> Candidate | None:
        """The job that is all that a round is for."""
        newcomers, self._newcomers = self._newcomers, []
        must_look, self._must_look = self._must_look, False
        return newcomers[0] if len(newcomers) == 1 and not must_look else None

    async def run_once(self) -> None:
        """Fill the free slots; raises ``StoreUnavailableError``."""
        begun, anew = time.monotonic(), bool(self._newcomers)
        newcomer = self._only_newcomer()
        if newcomer is None:
            self.looked_at = begun
        for _ in range(_ROUNDS):
            if not self._bus.is_connected:
                return  # nobody could hear of a work order: the runs are better off queued
            admitted, newcomer = await self._admitting.admit(newcomer, anew=anew), None
            self._tell(admitted.orders)
            started = {order.job_id for order in admitted.orders}
            self._newcomers = [each for each in self._newcomers if each.job_id not in started]
            anew = bool(self._newcomers)
            await self._admitting.hide(admitted.short)
            if not admitted.look_again:
                await _REST.after(len(admitted.orders), begun=begun)
                return

    def _tell(self, dispatched: Sequence[Dispatched]) -> None:
        """Send each agent its orders; its answer is not waited for by those of the next round."""
        by_agent: defaultdict[str, list[Dispatched]] = defaultdict(list)
        for run in dispatched:
            by_agent[run.agent].append(run)
        for agent, orders in by_agent.items():
            task = asyncio.create_task(self._tell_agent(agent, orders), name=f"orders for {agent}")
            self._telling.add(task)
            task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("orders were not sent, on a bug; their leases run out", exc_info=error)

    async def settle(self, timeout: timedelta) -> None:
        """Return once each agent that was told something has answered, or it is noted that it has not."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=timeout.total_seconds())

    async def _tell_agent(self, agent: str, orders: Sequence[Dispatched]) -> None:
        try:
            data = encoded_orders(orders)
            if len(data) > self._bus.most_bytes:
                data = encoded_orders([replace(order, work=None) for order in orders])
            await self._bus.tell(subjects.orders(agent), data)
        except NobodyListensError as error:
            log.warning("orders are recalled", runs=len(orders), error=str(error))
            await self._note(agent, unheard=orders)
        except BusUnavailableError as error:
            # It may have begun with them: only their leases tell.
            log.warning("orders may be lost; the leases of what was not begun with run out", error=str(error))
            await self._note(agent)

    async def _note(self, agent: str, *, unheard: Sequence[Dispatched] = ()) -> None:
        try:
            await self._scheduling.avoid(agent)
            if unheard:
                await self._scheduling.recall_orders(unheard)
        except StoreUnavailableError as error:
            log.warning("a deaf agent could not be noted; its leases run out", agent=agent, error=str(error))


def encoded_orders(orders: Sequence[Dispatched]) -> bytes:
    """What the agent is told that all of these are given to."""
    told = [
        WorkOrder(run_id=str(each.run_id), job_id=str(each.job_id), token=each.token.bytes, work=each.work or b"")
        for each in orders
    ]
    return WorkOrders(orders=told, beat=min(each.beat for each in orders)).SerializeToString()
