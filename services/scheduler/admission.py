"""Admission: lets queued runs take free slots, and sends their work orders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import WorkOrder
from services.jobs.admitting import Admitting, Dispatched
from services.runtime.batching import Rest
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.telemetry import logger

log = logger("scheduler.admission")

_ROUNDS = 20
"""Before the loop's other duties have their turn."""
_REST = Rest(timedelta(milliseconds=20))


class Admission:
    def __init__(self, admitting: Admitting, bus: Bus) -> None:
        self._admitting = admitting
        self._bus = bus

    async def run_once(self) -> None:
        """Fill the free slots; raises ``StoreUnavailableError``."""
        begun = time.monotonic()
        for _ in range(_ROUNDS):
            if not self._bus.is_connected:
                return  # nobody could hear of a work order: the runs are better off queued
            admitted = await self._admitting.admit()
            if admitted.orders:
                await self._send(admitted.orders)
            if not admitted.look_again:
                await _REST.after(len(admitted.orders), begun=begun)
                return

    async def _send(self, dispatched: Sequence[Dispatched]) -> None:
        try:
            await self._bus.publish_in_order([_order(run) for run in dispatched])
        except BusUnavailableError as error:
            log.warning("work orders may be lost; the sweep recalls the runs", error=str(error))


def _order(run: Dispatched) -> Outgoing:
    order = WorkOrder(run_id=str(run.run_id), job_id=str(run.job_id), dispatch=run.dispatch)
    return Outgoing(
        subjects.work(run.queue), order.SerializeToString(), subjects.work_order_id(str(run.run_id), run.dispatch)
    )
