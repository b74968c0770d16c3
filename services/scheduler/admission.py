"""Admission: lets queued runs take free slots, and sends their work orders."""

from __future__ import annotations

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import WorkOrder
from services.contracts.words import Queue
from services.jobs.scheduling import Dispatched, Scheduling
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.telemetry import logger

log = logger("scheduler.admission")

RUN_QUEUES = (Queue.CODE, Queue.TASK, Queue.REVIEW)


class Admission:
    def __init__(self, scheduling: Scheduling, bus: Bus, *, max_runs: int) -> None:
        self._scheduling = scheduling
        self._bus = bus
        self._max_runs = max_runs

    async def run_once(self) -> None:
        """Fill the free slots of every queue; raises ``StoreUnavailableError``."""
        if not self._bus.is_connected:
            return  # nobody could hear of a work order: the runs are better off queued
        slots = min(self._max_runs, await self._scheduling.live_capacity())
        for queue in RUN_QUEUES:
            dispatched = await self._scheduling.admit(queue, slots=slots)
            if dispatched:
                await self._send(dispatched)

    async def _send(self, dispatched: list[Dispatched]) -> None:
        try:
            await self._bus.publish_all([_order(run) for run in dispatched])
        except BusUnavailableError as error:
            log.warning("work orders may be lost; the sweep recalls the runs", error=str(error))


def _order(run: Dispatched) -> Outgoing:
    order = WorkOrder(run_id=str(run.run_id), job_id=str(run.job_id), dispatch=run.dispatch)
    return Outgoing(
        subjects.work(run.queue), order.SerializeToString(), subjects.work_order_id(str(run.run_id), run.dispatch)
    )
