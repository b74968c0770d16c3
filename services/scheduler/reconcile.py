"""The sweep: finds what no message moved and moves it. One mechanism for every lost message and killed process."""

from __future__ import annotations

import time
from datetime import timedelta

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import PublishOrder, RunControl
from services.contracts.words import Queue
from services.jobs.cancelling import Cancelling
from services.jobs.publishing import DuePublication, Publishing
from services.jobs.scheduling import LEASE, Scheduling
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("scheduler.reconcile")

ORDER_OVERDUE = timedelta(seconds=10)
"""A work order that nobody claimed for so long is taken to be lost."""
_FORGET_EVERY_SECONDS = 3600.0


class Reconciler:
    def __init__(self, scheduling: Scheduling, cancelling: Cancelling, publishing: Publishing, bus: Bus) -> None:
        self._scheduling = scheduling
        self._cancelling = cancelling
        self._publishing = publishing
        self._bus = bus
        self._connected_since: float | None = None
        self._forgot_at = 0.0

    async def run_once(self) -> None:
        """One sweep; raises ``StoreUnavailableError``."""
        try:
            await self._sweep()
        except StoreUnavailableError:
            self._connected_since = None
            raise

    async def _sweep(self) -> None:
        await self.carry_out_cancels()
        if recalled := await self._scheduling.recall(overdue=ORDER_OVERDUE):
            log.info("recalled runs that nobody claimed", runs=recalled)
        if self._may_expire():
            await self._lose_expired()
        await self._send_due_publications()
        await self._forget()

    def _may_expire(self) -> bool:
        """While Postgres was away nobody could renew: expire nothing until connected for a lease's length."""
        now = time.monotonic()
        if self._connected_since is None:
            self._connected_since = now
        return now - self._connected_since >= LEASE.total_seconds()

    async def _lose_expired(self) -> None:
        if lost := await self._scheduling.lose_expired():
            log.warning("took runs from agents that stopped renewing", runs=lost)
        if lost := await self._publishing.lose_expired():
            log.warning("took publications from vcs nodes that stopped renewing", publications=lost)

    async def carry_out_cancels(self) -> None:
        """Cancel what is idle; tell the agents of what is held."""
        waiting = await self._cancelling.waiting()
        await self._cancelling.cancel_idle([run for run in waiting if not run.held])
        for run in waiting:
            if run.held:
                control = RunControl(run_id=str(run.run_id), kind=RunControl.KIND_CANCEL)
                await self._bus.ring(subjects.control(str(run.run_id)), control.SerializeToString())

    async def _send_due_publications(self) -> None:
        if not self._bus.is_connected:
            return
        due = await self._publishing.due(overdue=ORDER_OVERDUE)
        try:
            await self._bus.publish_all([_publish_order(publication) for publication in due])
        except BusUnavailableError as error:
            log.warning("publish orders may be lost; a later sweep sends them again", error=str(error))

    async def _forget(self) -> None:
        if time.monotonic() - self._forgot_at >= _FORGET_EVERY_SECONDS:
            await self._scheduling.forget_old()
            self._forgot_at = time.monotonic()


def _publish_order(publication: DuePublication) -> Outgoing:
    order = PublishOrder(
        changeset_id=str(publication.changeset_id), run_id=str(publication.run_id), dispatch=publication.dispatch
    )
    return Outgoing(
        subjects.work(Queue.PUBLISH),
        order.SerializeToString(),
        subjects.work_order_id(str(publication.changeset_id), publication.dispatch),
    )
