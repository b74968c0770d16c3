"""Takes work orders up to the agent's capacity, claims their runs, and sees each attempt to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, assert_never
from uuid import UUID

from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import RunControl, WorkOrder
from services.contracts.words import Queue
from services.jobs.errors import LeaseLostError
from services.jobs.heartbeat import Ending, Heartbeat
from services.jobs.models import Checkpoint, ClaimedRun
from services.jobs.running import Claim, Order, Running
from services.runtime.batching import Rest
from services.runtime.jetstream import Bus, Message
from services.runtime.lifecycle import Capacity
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("agent.worker")

RUN_QUEUES = (Queue.CODE, Queue.TASK, Queue.REVIEW)
ALL_CONTROLS = "qd.ctl.*"
_NAK_SECONDS = 0.1
_REST = Rest(timedelta(milliseconds=20))


class Stop(StrEnum):
    """Why an attempt is stopped from outside."""

    CANCELLED = "cancelled"
    LOST = "lost"
    INTERRUPTED = "interrupted"


class Work(Protocol):
    """What is done for one claimed run."""

    async def work(self) -> None:
        """Do it and record how it ended; when cancelled, record nothing."""

    def kill(self) -> None:
        """End its programs at once: the lease is lost, and the work may begin elsewhere soon."""

    def left(self) -> Checkpoint | None:
        """What is still to be stored of it, once ``work`` was cancelled, if the run is cancelled with that."""

    async def release(self) -> None:
        """Remove what it left on this node."""

    def hear(self) -> None:
        """The run's user said something."""


@dataclass
class _Live:
    """An attempt under way."""

    run: ClaimedRun
    work: Work
    task: asyncio.Task[None]
    stop: Stop | None = None

    def end(self, why: Stop) -> None:
        """The first reason stands, but for a lost lease, which outdoes all."""
        if why is Stop.LOST:
            self.work.kill()
        if self.stop is None or why is Stop.LOST:
            self.stop = why
            self.task.cancel()


class Worker:
    def __init__(
        self,
        begin: Callable[[ClaimedRun], Work],
        *,
        running: Running,
        bus: Bus,
        heartbeat: Heartbeat,
        name: str,
        capacity: int,
    ) -> None:
        """``begin``: what to do for a run. ``name``: the node's, which runs are claimed under. ``capacity``: runs at
        once.
        """
        self._begin = begin
        self._running = running
        self._bus = bus
        self._heartbeat = heartbeat
        self._name = name
        self._capacity = Capacity(capacity)
        self._pulled: list[Message] = []
        self._is_claiming = False
        self._live: dict[UUID, _Live] = {}
        self._taking_up: dict[UUID, Claim] = {}
        """Of each run the newest claim that is not begun with yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    async def take_orders(self, queue: Queue) -> None:
        """Take the work orders of ``queue`` for ever."""
        orders = self._bus.pull(
            subjects.WORK_STREAM, subjects.work(queue), subjects.work_consumer(queue), batch=self._capacity.free
        )
        async for messages in orders:
            free = self._capacity.total - self._capacity.busy
            for message in messages[free:]:
                # Every queue has a request under way, and the places that this one counted on are taken.
                await _tell(message.nak(delay=_NAK_SECONDS))
            if taken := messages[:free]:
                self._capacity.take(len(taken))
                self._pulled += taken
                if not self._is_claiming:
                    self._is_claiming = True
                    self._start(self._claim_pulled(), "claims", places=0)

    def _start(self, work: Coroutine[Any, Any, None], name: str, *, places: int) -> asyncio.Task[None]:
        """Run ``work`` beside everything else; it occupies ``places`` of the capacity, which are free at its end."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, places=places))
        return task

    def _ended(self, task: asyncio.Task[None], *, places: int) -> None:
        self._tasks.discard(task)
        self._capacity.give_back(places)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an attempt ended on a bug; its lease runs out", exc_info=error)

    async def hear_controls(self) -> None:
        """Hear at once what the next renewal would tell anyway."""
        await self._bus.listen(ALL_CONTROLS, self._on_control)
        await asyncio.Event().wait()

    async def _on_control(self, message: Message) -> None:
        run_id = message.subject.rpartition(".")[2]
        live = next((found for key, found in self._live.items() if str(key) == run_id), None)
        if live is None:
            return
        match _control(message).kind:
            case RunControl.KIND_CANCEL:
                live.end(Stop.CANCELLED)
            case RunControl.KIND_MESSAGE:
                live.work.hear()

    async def drain(self, timeout: timedelta) -> None:
        """Let attempts finish until ``timeout``, then hand what is left back as interrupted."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout.total_seconds() / 2)
        self._draining = True
        for live in list(self._live.values()):
            live.end(Stop.INTERRUPTED)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout.total_seconds() / 2)

    async def _claim_pulled(self) -> None:
        """One claim at a time: what comes meanwhile is claimed together."""
        try:
            while messages := self._pulled:
                self._pulled, begun = [], time.monotonic()
                # A task of its own: what goes wrong with some is not to keep others from being claimed.
                await asyncio.wait([self._start(self._take(messages), "claim", places=0)])
                await _REST.after(len(messages), begun=begun)
        finally:
            self._is_claiming = False

    async def _take(self, messages: Sequence[Message]) -> None:
        """Claim what ``messages`` order, in one transaction, and begin with each run that is ours now."""
        claimed_at = time.monotonic()
        begun = 0
        try:
            orders = [order for message in messages if (order := _order(message)) is not None]
            for claim in await self._running.claim(orders, agent=self._name) if orders else ():
                self._start(self._see_through(claim, claimed_at), f"attempt of {claim.hold.run_id}", places=1)
                begun += 1
        except StoreUnavailableError:
            return  # not acknowledged: they come again
        finally:
            self._capacity.give_back(len(messages) - begun)
        await _tell(self._bus.acknowledge(messages))

    async def _see_through(self, claim: Claim, claimed_at: float) -> None:
        """Work on the claimed run under its lease, and say how it ended where it was stopped from outside."""
        hold = claim.hold
        if (older := self._live.pop(hold.run_id, None)) is not None:
            older.end(Stop.LOST)  # this process had lost the run before it claimed it again
        if (run := await self._taken_up(claim, claimed_at)) is None:
            return
        attempt = self._begin(run)
        live = _Live(run, attempt, asyncio.create_task(attempt.work(), name=f"run {hold.run_id}"))
        self._live[hold.run_id] = live
        self._heartbeat.hold(hold.run_id, hold.token, claimed_at=claimed_at, on_end=_ender(live), on_call=attempt.hear)
        if self._draining:
            live.end(Stop.INTERRUPTED)  # claimed while everything else was being handed back
        try:
            await asyncio.wait([live.task])
            if live.stop is Stop.CANCELLED:
                await attempt.release()  # a cancelled run's work is gone before that is told
            await self._conclude_or_cancel(live, attempt)
        except (LeaseLostError, StoreUnavailableError) as error:
            log.warning("attempt given up", run=str(hold.run_id), attempt=hold.attempt, error=str(error))
        finally:
            self._forget(live)
        if live.stop is not Stop.CANCELLED:
            await attempt.release()

    async def _taken_up(self, claim: Claim, claimed_at: float) -> ClaimedRun | None:
        """The claimed run, whose lease is renewed from now on, as there may be much to read; None: it is not to begin.

        What its holder is told meanwhile, the next renewal tells again.
        """
        run_id = claim.hold.run_id
        self._taking_up[run_id] = claim
        self._heartbeat.hold(run_id, claim.hold.token, claimed_at=claimed_at, on_end=lambda _: None)
        try:
            run = await self._running.take_up(claim)
        except StoreUnavailableError as error:
            log.warning("what a run goes on from could not be read", run=str(run_id), error=str(error))
            run = None
        if self._taking_up.get(run_id) is not claim:
            return None  # this process had lost it meanwhile, and has claimed it again
        del self._taking_up[run_id]
        if run is None:
            self._heartbeat.drop(run_id)
        return run

    def _forget(self, live: _Live) -> None:
        run_id = live.run.hold.run_id
        if self._live.get(run_id) is live:  # else this process has claimed the run again already
            self._heartbeat.drop(run_id)
            del self._live[run_id]

    async def _conclude_or_cancel(self, live: _Live, attempt: Work) -> None:
        try:
            await self._conclude(live)
        except LeaseLostError:
            # Refused although the lease stands: a cancel was accepted that has not been heard of here. If the lease
            # is gone this is refused, too.
            await attempt.release()
            await self._running.cancelled(live.run.hold, left=attempt.left())

    async def _conclude(self, live: _Live) -> None:
        if not live.task.cancelled():
            live.task.result()  # it has recorded its own end, or raises why it could not
            return
        match live.stop:
            case Stop.CANCELLED:
                await self._running.cancelled(live.run.hold, left=live.work.left())
            case Stop.INTERRUPTED:
                await self._running.interrupted(live.run.hold)
            case Stop.LOST | None:
                log.warning("lease lost", run=str(live.run.hold.run_id), attempt=live.run.hold.attempt)
            case _:
                assert_never(live.stop)


def _order(message: Message) -> Order | None:
    """What ``message`` orders; None where it is no work order."""
    try:
        order = WorkOrder.FromString(message.data)
        return Order(UUID(order.run_id), UUID(order.job_id), order.dispatch)
    except (DecodeError, ValueError):
        log.exception("not a work order, thrown away", subject=message.subject)
        return None


def _control(message: Message) -> RunControl:
    """What ``message`` tells; nothing where it is no control."""
    try:
        return RunControl.FromString(message.data)
    except DecodeError:
        log.warning("not a control, thrown away", subject=message.subject)
        return RunControl()


async def _tell(telling: Awaitable[None]) -> None:
    """Say what becomes of a message; where NATS does not hear it, the message comes again and is found stale."""
    with suppress(NatsError, OSError):
        await telling


def _ender(live: _Live) -> Callable[[Ending], None]:
    def end(ending: Ending) -> None:
        live.end(Stop.CANCELLED if ending is Ending.CANCELLED else Stop.LOST)

    return end
