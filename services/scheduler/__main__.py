"""`python -m services.scheduler`: admits, dispatches, cancels, reconciles. Never touches Git or the model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from google.protobuf.message import DecodeError

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import JobCommand, RunControl
from services.jobs.admitting import Admitting
from services.jobs.cancelling import Cancelling
from services.jobs.messaging import Messaging
from services.jobs.newcomers import heard
from services.jobs.outbox import Outbox
from services.jobs.publishing import Publishing
from services.jobs.scheduling import Scheduling
from services.jobs.unit import Rung, Units
from services.jobs.work_items import WorkItems
from services.runtime import jetstream, lifecycle, postgres
from services.runtime.health import serve_health
from services.runtime.jetstream import Bus, Message
from services.runtime.lifecycle import Doorbell
from services.runtime.postgres import Database
from services.runtime.settings import load
from services.runtime.telemetry import configure_logs, logger
from services.scheduler.admission import Admission
from services.scheduler.answering import Answering
from services.scheduler.publication import EventPublisher
from services.scheduler.reconcile import Reconciler, UseCases
from services.scheduler.settings import SchedulerSettings

log = logger("scheduler")

SWEEP_EVERY = timedelta(seconds=0.5)
ANSWERS_EVERY = timedelta(seconds=1)
EVENTS_LINGER = timedelta(milliseconds=15)
_JUST_NOW = timedelta(milliseconds=50)
_TRANSIENT = (*postgres.TRANSIENT, *jetstream.TRANSIENT)


class Scheduler:
    """The loops of one scheduler process, each with the doorbell that wakes it."""

    def __init__(self, settings: SchedulerSettings, database: Database, bus: Bus) -> None:
        self._bus = bus
        self._admission_bell = Doorbell()
        self._events_bell = Doorbell()
        self._cancel_bell = Doorbell()
        units = Units(database, ring=self._ring)
        admitting = Admitting(units, most_runs=settings.max_runs)
        scheduling = Scheduling(units)
        self._admission = Admission(admitting, scheduling, bus)
        self._publisher = EventPublisher(Outbox(database), bus)
        self._answering = Answering(WorkItems(database))
        cases = UseCases(admitting, scheduling, Cancelling(units), Publishing(units), Messaging(units))
        self._reconciler = Reconciler(cases, bus, on_admissible=self._ring_admission)

    async def _ring(self, rung: Rung) -> None:
        self._events_bell.ring()
        if rung is Rung.SLOTS:
            self._ring_admission()

    def _ring_admission(self) -> None:
        self._admission.look()
        self._admission_bell.ring()

    def tasks(self) -> list[asyncio.Task[Any]]:
        return [
            asyncio.create_task(self._hear_commands(), name="commands"),
            asyncio.create_task(self._hear_events(), name="event doorbell"),
            _loop("admission", self._admission.run_once, self._admission_bell),
            _loop("events", self._publish_events, self._events_bell),
            _loop("reconcile", self._reconciler.run_once, Doorbell()),
            _loop("answers", self._answering.run_once, Doorbell(), ANSWERS_EVERY),
            _loop("cancels", self._reconciler.carry_out_cancels, self._cancel_bell, timedelta(seconds=5)),
        ]

    async def settle(self, timeout: timedelta) -> None:
        """After the loops have stopped: let what they began come to its end."""
        await self._admission.settle(timeout)

    async def _publish_events(self) -> None:
        # What a run's beginning tells comes in quick succession: a moment's patience publishes it together, and
        # leaves the processor to the beginning itself.
        await asyncio.sleep(EVENTS_LINGER.total_seconds())
        await self._events_bell.wait(timedelta())  # what was rung for meanwhile is published now, too
        await self._publisher.run_once()

    async def _hear_commands(self) -> None:
        stream = self._bus.pull(subjects.COMMANDS_STREAM, subjects.ALL_COMMANDS, "scheduler", batch=_commands_at_once)
        async for messages in stream:
            for message in messages:
                # Which job it is about does not matter: the loops look at all there is to do.
                if message.subject == subjects.COMMAND_CANCEL:
                    self._cancel_bell.ring()
                elif message.subject == subjects.COMMAND_MESSAGE:
                    self._ring_admission()
                    await self._tell_agent(message)
                elif time.monotonic() - self._admission.looked_at > _JUST_NOW.total_seconds():
                    self._ring_admission()  # else the bell of whoever sent this was heard already
                await message.ack()

    async def _tell_agent(self, message: Message) -> None:
        """A run's user said something; if an agent holds the run, it hears of it now."""
        try:
            run_id = JobCommand.FromString(message.data).run_id
        except DecodeError:
            log.warning("not a command, thrown away", subject=message.subject)
            return
        if run_id:
            control = RunControl(run_id=run_id, kind=RunControl.KIND_MESSAGE)
            await self._bus.ring(subjects.control(run_id), control.SerializeToString())

    async def _hear_events(self) -> None:
        await self._bus.listen(subjects.EVENTS_DOORBELL, self._on_events)

        # The subscription lives as long as the connection; this task as long as the process.
        await asyncio.Event().wait()

    async def _on_events(self, message: Message) -> None:
        rung, newcomer = heard(message.data)
        if newcomer is None:
            await self._ring(rung)
        else:
            self._admission.expect(newcomer)
            self._admission_bell.ring()
            self._events_bell.ring()


async def _commands_at_once() -> int:
    return 500


def _loop(
    name: str, step: Callable[[], Awaitable[None]], bell: Doorbell, every: timedelta = SWEEP_EVERY
) -> asyncio.Task[None]:
    return asyncio.create_task(
        lifecycle.repeat(name, step, wait=lambda: bell.wait(every), transient=_TRANSIENT), name=name
    )


async def serve(stop: asyncio.Event) -> None:
    settings = load(SchedulerSettings)
    configure_logs(service="scheduler", level=settings.log_level, log_format=settings.log_format)
    database = Database(settings.database_url.get_secret_value(), size=settings.database_pool, name="scheduler")
    bus = Bus(settings.nats_url.get_secret_value(), name="scheduler")
    checks = {"postgres": database.check, "nats": bus.check}
    async with serve_health("scheduler", settings.health_address, checks):
        await bus.start()
        scheduler = Scheduler(settings, database, bus)
        tasks = scheduler.tasks()
        log.info("started")
        try:
            await lifecycle.until_stopped(stop, tasks)
        finally:
            await lifecycle.stop_tasks(tasks, timeout=timedelta(seconds=settings.drain_seconds))
            await scheduler.settle(timedelta(seconds=settings.drain_seconds))
            await bus.close()
            await database.close()
    log.info("stopped")


if __name__ == "__main__":
    lifecycle.run(serve)
