"""Begins with the runs that the agent is given, and sees each attempt to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, assert_never
from uuid import UUID

from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError

from services.agent.live import Live, Stop, Work
from services.contracts import subjects
from services.contracts.v1.commands_pb2 import RunControl, WorkOrders
from services.jobs.errors import LeaseLostError
from services.jobs.heartbeat import FRESH_FOR, GIVE_UP_AFTER, Ending, Heartbeat
from services.jobs.models import ClaimedRun, Hold
from services.jobs.orders import Claim, Order, known_run
from services.jobs.running import Running
from services.runtime.batching import Rest
from services.runtime.ids import as_uuid
from services.runtime.jetstream import Bus, Listening, Message
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("agent.worker")

ALL_CONTROLS = "qd.ctl.*"
_REST = Rest(timedelta(milliseconds=20))


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
        """``begin``: what to do for a run. ``name``: of the node that runs are given to. ``capacity``: runs at once."""
        self._begin = begin
        self._running = running
        self._bus = bus
        self._heartbeat = heartbeat
        self._name = name
        self._capacity = capacity
        self._listening: Listening | None = None
        self._ordered: list[Order] = []
        self._is_claiming = False
        self._live: dict[UUID, Live] = {}
        self._taking_up: dict[UUID, Claim] = {}
        """Of each run the newest claim that is not begun with yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[UUID, float] = {}
        """The tokens of orders that were begun with at once, and when, for as long as such an order may be."""
        self._takes_more = True
        self._draining = False

    async def hear_orders(self) -> None:
        """Say that there are places once orders can be heard, and take them up for ever."""
        self._listening = await self._bus.listen(subjects.orders(self._name), self._on_orders)
        self._heartbeat.offer(self._places)
        await asyncio.Event().wait()

    def _places(self) -> int:
        """Runs at once that may be given to this agent now."""
        return self._capacity if self._takes_more and self._bus.is_connected else 0

    async def _on_orders(self, message: Message) -> None:
        self._ordered += self._begin_with(_told(message))
        if self._ordered and not self._is_claiming:
            self._is_claiming = True
            self._start(self._claim_ordered(), "claims")
        # Behind that, so that no drain comes in between and misses it; nor has the claim to wait for it.
        self._start(_answered(message), "answer")

    def _begin_with(self, told: WorkOrders) -> list[Order]:
        """Begin with those runs of which the order says everything, if it is so young that nobody else can have got
        them since; returns those that have to be claimed.
        """
        orders, now = _orders(told), time.monotonic()
        granted_at = self._heartbeat.sent_at(told.beat)
        if granted_at is None or now - granted_at > FRESH_FOR.total_seconds():
            return orders
        while self._begun and next(iter(self._begun.values())) < now - FRESH_FOR.total_seconds():
            del self._begun[next(iter(self._begun))]
        left = []
        for order in orders:
            if order.token in self._begun:
                continue
            if (claim := order.as_claim()) is None:
                left.append(order)
                continue
            self._begun[order.token] = now
            self._start(self._see_through(claim, granted_at), f"attempt of {order.run_id}")
        return left

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` beside everything else."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an attempt ended on a bug; its lease runs out", exc_info=error)

    async def hear_controls(self) -> None:
        """Hear at once what the next renewal would tell anyway."""
        await self._bus.listen(ALL_CONTROLS, self._on_control)
        await asyncio.Event().wait()

    async def _on_control(self, message: Message) -> None:
        try:
            live = self._live.get(as_uuid(message.subject.rpartition(".")[2]))
        except ValueError:
            return
        if live is None:
            return
        match _control(message).kind:
            case RunControl.KIND_CANCEL:
                live.end(Stop.CANCELLED)
            case RunControl.KIND_MESSAGE:
                live.work.hear()

    async def drain(self, timeout: timedelta) -> None:
        """Take no more; let attempts finish until ``timeout``, then hand what is left back as interrupted."""
        self._takes_more = False
        self._heartbeat.offer(self._places)
        await self._until_idle(timeout / 2)
        self._draining = True
        if self._listening is not None:
            await self._listening.stop()
        for live in list(self._live.values()):
            live.end(Stop.INTERRUPTED)
        await self._until_idle(timeout / 2)

    async def _until_idle(self, timeout: timedelta) -> None:
        """Wait for what is under way, and for what that begins: a claim ends with attempts."""
        until = time.monotonic() + timeout.total_seconds()
        while self._tasks and (left := until - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left)

    async def _claim_ordered(self) -> None:
        """One claim at a time: what comes meanwhile is claimed together."""
        try:
            while self._ordered:
                orders, self._ordered, begun = self._ordered, [], time.monotonic()
                # A task of its own: what goes wrong with these is not to keep others from being claimed.
                await asyncio.wait([self._start(self._take(orders), "claim")])
                await _REST.after(len(orders), begun=begun)
        finally:
            self._is_claiming = False

    async def _take(self, orders: Sequence[Order]) -> None:
        """Take up what was ordered, and begin with each run that is ours now."""
        orders = [order for order in orders if not self._has(order)]
        if not orders:
            return
        claimed_at = time.monotonic()
        try:
            claims = await self._running.claim(orders)
        except StoreUnavailableError as error:
            log.warning("orders could not be claimed; their leases run out", runs=len(orders), error=str(error))
            return
        for claim in claims:
            see_through = self._give_back(claim) if claim.cancel_requested else self._see_through(claim, claimed_at)
            self._start(see_through, f"attempt of {claim.hold.run_id}")

    def _has(self, order: Order) -> bool:
        """Whether this order was taken up already: the lease would be found to be ours again."""
        live, claim = self._live.get(order.run_id), self._taking_up.get(order.run_id)
        holds = [live.run.hold if live is not None else None, claim.hold if claim is not None else None]
        return order.token in [hold.token for hold in holds if hold is not None]

    async def _give_back(self, claim: Claim) -> None:
        """Its cancel was accepted before anything began."""
        try:
            await self._running.cancelled(claim.hold)
        except (LeaseLostError, StoreUnavailableError) as error:
            log.warning("a cancelled run could not be given back", run=str(claim.hold.run_id), error=str(error))

    async def _see_through(self, claim: Claim, claimed_at: float) -> None:
        """Work on the claimed run under its lease, and say how it ended where it was stopped from outside."""
        hold = claim.hold
        if time.monotonic() - claimed_at > GIVE_UP_AFTER.total_seconds():
            log.warning("too late to begin: the lease may be over", run=str(hold.run_id))
            return
        if (older := self._live.pop(hold.run_id, None)) is not None:
            older.end(Stop.LOST)  # this process had lost the run before it claimed it again
        try:
            run = known_run(claim) or await self._taken_up(claim, claimed_at)
            if run is None:
                return
            attempt = self._attempt_of(run)
        except Exception:
            await self._own_up(hold)
            raise
        live = Live(run, attempt)
        self._live[hold.run_id] = live
        self._heartbeat.hold(hold.run_id, hold.token, claimed_at=claimed_at, on_end=_ender(live), on_call=attempt.hear)
        if self._draining:
            live.end(Stop.INTERRUPTED)  # claimed while everything else was being handed back
        try:
            await self._work(live)
        except Exception as error:
            await self._own_up(hold)
            if not isinstance(error, LeaseLostError | StoreUnavailableError):
                raise
            log.warning("attempt given up", run=str(hold.run_id), attempt=hold.attempt, error=str(error))
        finally:
            self._forget(live)
        await live.release()

    def _attempt_of(self, run: ClaimedRun) -> Work:
        try:
            return self._begin(run)
        except Exception:
            self._heartbeat.drop(run.hold.run_id)  # nobody would work under the lease
            raise

    async def _taken_up(self, claim: Claim, claimed_at: float) -> ClaimedRun | None:
        """The claimed run, whose lease is renewed from now on, as there may be much to read; None: it is not to begin.

        What its holder is told meanwhile, the next renewal tells again.
        """
        run_id = claim.hold.run_id
        self._taking_up[run_id] = claim
        self._heartbeat.hold(run_id, claim.hold.token, claimed_at=claimed_at, on_end=lambda _: None)
        run = None
        try:
            run = await self._running.take_up(claim)
        except StoreUnavailableError as error:
            log.warning("what a run goes on from could not be read", run=str(run_id), error=str(error))
        finally:
            is_newest = self._taking_up.get(run_id) is claim  # else this process had lost it, and has claimed it again
            if is_newest:
                del self._taking_up[run_id]
                if run is None:
                    self._heartbeat.drop(run_id)  # also after a bug: nobody would work under the lease
        return run if is_newest else None

    async def _own_up(self, hold: Hold) -> None:
        """Have it counted against the run that it was begun with, where no renewal has said so yet."""
        with suppress(StoreUnavailableError):
            await self._running.claim([Order(hold.run_id, hold.token)])

    def _forget(self, live: Live) -> None:
        run_id = live.run.hold.run_id
        if self._live.get(run_id) is live:  # else this process has claimed the run again already
            self._heartbeat.drop(run_id)
            del self._live[run_id]

    async def _work(self, live: Live) -> None:
        """Do the work; where it did not come to its end, say so. A cancelled run's work is gone before that is told."""
        try:
            if await live.came_to_its_end():
                return  # it has recorded how
            if live.stop is Stop.CANCELLED:
                await live.release()
            await self._conclude(live)
        except LeaseLostError:
            # Refused although the lease stands: a cancel was accepted that has not been heard of here. If the lease
            # is gone this is refused, too.
            await live.release()
            await self._running.cancelled(live.run.hold, left=live.work.left())
        except Exception:
            if live.stop is Stop.CANCELLED:
                await live.release()  # while the lease is still renewed: nobody tells before that it is cancelled
            raise

    async def _conclude(self, live: Live) -> None:
        match live.stop:
            case Stop.CANCELLED:
                await self._running.cancelled(live.run.hold, left=live.work.left())
            case Stop.INTERRUPTED:
                await self._running.interrupted(live.run.hold)
            case Stop.LOST | None:
                log.warning("lease lost", run=str(live.run.hold.run_id), attempt=live.run.hold.attempt)
            case _:
                assert_never(live.stop)


def _told(message: Message) -> WorkOrders:
    """What ``message`` orders; nothing where it holds no work orders."""
    try:
        return WorkOrders.FromString(message.data)
    except DecodeError:
        log.exception("no work orders, thrown away", subject=message.subject)
        return WorkOrders()


def _orders(told: WorkOrders) -> list[Order]:
    try:
        return [
            Order(as_uuid(order.run_id), as_uuid(order.token), as_uuid(order.job_id), order.work)
            for order in told.orders
        ]
    except ValueError:
        log.exception("no work orders, thrown away")
        return []


def _control(message: Message) -> RunControl:
    """What ``message`` tells; nothing where it is no control."""
    try:
        return RunControl.FromString(message.data)
    except DecodeError:
        log.warning("not a control, thrown away", subject=message.subject)
        return RunControl()


async def _answered(message: Message) -> None:
    """Say that ``message`` came; where NATS does not hear it, what was taken up by then stays so."""
    with suppress(NatsError, OSError):
        await message.respond(b"")


def _ender(live: Live) -> Callable[[Ending], None]:
    def end(ending: Ending) -> None:
        live.end(Stop.CANCELLED if ending is Ending.CANCELLED else Stop.LOST)

    return end
