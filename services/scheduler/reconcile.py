"""The sweep: finds what no message moved and moves it. One mechanism for every lost message and killed process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import PublishOrder, RunControl
from services.contracts.words import Queue
from services.jobs.admitting import Admitting
from services.jobs.cancelling import MOST_AT_ONCE, Cancelling, ToCancel
from services.jobs.messaging import Messaging
from services.jobs.publishing import DuePublication, Publishing
from services.jobs.scheduling import LEASE, Scheduling
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("scheduler.reconcile")

ORDER_OVERDUE = timedelta(seconds=10)
"""A work order that nobody claimed for so long is taken to be lost."""
_FORGET_EVERY_SECONDS = 60.0
_CANCEL_ROUNDS = 20
"""Of one sweep, which is not to keep the others waiting for long."""


@dataclass(frozen=True)
class UseCases:
    """The use cases that the sweep moves things with."""

    admitting: Admitting
    scheduling: Scheduling
    cancelling: Cancelling
    publishing: Publishing
    messaging: Messaging


class Reconciler:
    def __init__(self, cases: UseCases, bus: Bus, *, on_admissible: Callable[[], None]) -> None:
        """``on_admissible``: called when something may be admitted that could not before."""
        self._scheduling = cases.scheduling
        self._cancelling = cases.cancelling
        self._publishing = cases.publishing
        self._admitting = cases.admitting
        self._messaging = cases.messaging
        self._bus = bus
        self._on_admissible = on_admissible
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
        connected_for = self._connected_for()
        if connected_for >= LEASE:
            # Before, nobody could have renewed: nothing expires, and what was sent may still be on its way.
            await self._lose_expired(connected_for)
        if recalled := await self._scheduling.recall(overdue=ORDER_OVERDUE):
            log.info("recalled runs that nobody claimed", runs=recalled)
        if overdue := await self._scheduling.end_overdue():
            log.info("ended runs past their deadline", runs=overdue)
        await self._find_admissible()
        await self._send_due_publications()
        await self._forget()

    def _connected_for(self) -> timedelta:
        """How long Postgres has been reachable from here without a break."""
        now = time.monotonic()
        if self._connected_since is None:
            self._connected_since = now
        return timedelta(seconds=now - self._connected_since)

    async def _lose_expired(self, connected_for: timedelta) -> None:
        if lost := await self._scheduling.lose_expired(connected_for=connected_for):
            log.warning("took runs from agents that stopped renewing", runs=lost)
        if lost := await self._publishing.lose_expired():
            log.warning("took publications from vcs nodes that stopped renewing", publications=lost)

    async def _find_admissible(self) -> None:
        """Runs whose time has come, whose repository has room again, or whose user has said something."""
        found = await self._admitting.ripen()
        found += await self._admitting.release_held()
        found += await self._messaging.wake()
        if ended := await self._messaging.end_idle():
            log.info("ended conversations whose user was silent for too long", runs=ended)
        if found:
            self._on_admissible()

    async def carry_out_cancels(self) -> None:
        """Tell the agents of what is held; cancel what is idle, which may be a long queue."""
        waiting = await self._cancelling.waiting()
        for run in waiting:
            if run.held:
                await self._tell_agent(run)
        for _ in range(_CANCEL_ROUNDS):
            idle = [run for run in waiting if not run.held]
            await self._cancelling.cancel_idle(idle)
            if len(idle) < MOST_AT_ONCE:
                return
            waiting = await self._cancelling.waiting()

    async def _tell_agent(self, run: ToCancel) -> None:
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
        subjects.publish_order_id(str(publication.changeset_id), publication.dispatch),
    )
