"""The heartbeat: renews all leases of a process from a thread and connection of its own.

So a blocked event loop loses no run. Time is counted here from *sending* the last good renewal: after 5 s without one
the work is ended, before anybody else can start it when the lease runs out at 8 s.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from uuid import UUID

from services.jobs.leases import Node, Renewed, renew, tell_gone, tell_seen
from services.runtime.postgres import (
    CONNECTION_ERRORS,
    UNDONE,
    Connection,
    StoreUnavailableError,
    breakage_told,
    connect,
)
from services.runtime.telemetry import logger

log = logger("jobs.heartbeat")

RENEW_EVERY = timedelta(seconds=2)
GIVE_UP_AFTER = timedelta(seconds=5)
"""Without a good renewal. Must be below the lease, less the time that ending the work takes."""
FRESH_FOR = timedelta(seconds=3)
"""After a heartbeat, what was granted on it may be begun with: its next renewal comes before it is given up."""
BLOCKED_FOR_GOOD = timedelta(seconds=60)
"""An event loop that answers nothing for so long is not coming back: the process ends itself."""
EXIT_BLOCKED = 70
EXIT_HEARTBEAT_DIED = 71
_TICK_SECONDS = 0.25
_BEATS_KEPT = 16
_TRANSIENT: tuple[type[BaseException], ...] = (StoreUnavailableError, *CONNECTION_ERRORS, *UNDONE)


class Ending(StrEnum):
    """Why a holder must stop."""

    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass
class _Held:
    token: UUID
    on_end: Callable[[Ending], None]
    on_call: Callable[[], None] | None
    last_good: float
    """Monotonic time when the last renewal that held was sent."""
    told: bool = False


class Heartbeat:
    """Start it before claiming anything; stop it after everything is handed back."""

    def __init__(self, database_url: str, node: Node) -> None:
        self._url = database_url
        self._node = node
        self._held: dict[UUID, _Held] = {}
        self._beat_number = 0
        self._sent: dict[int, float] = {}
        """When the last heartbeats were sent, by their numbers; monotonic seconds."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_answered = time.monotonic()
        self._places: Callable[[], int] = lambda: 0
        self._hurries = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to renew; ``on_end`` callbacks run on the loop that calls this."""
        self._loop = asyncio.get_running_loop()
        self._loop_answered = time.monotonic()
        self._thread.start()

    def offer(self, places: Callable[[], int]) -> None:
        """Say from now on, and within a moment, that the node takes as many runs at once as ``places`` returns."""
        self._places = places
        self._hurries = True

    async def stop(self) -> None:
        """End the thread within 3 s; leases still held are left to run out."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 3)

    def hold(
        self,
        identifier: UUID,
        token: UUID,
        *,
        claimed_at: float,
        on_end: Callable[[Ending], None],
        on_call: Callable[[], None] | None = None,
    ) -> None:
        """Renew this lease from now on. ``claimed_at``: monotonic time before the claim was sent. ``on_call``: what
        to do at each renewal while the run's user waits to be heard at once. Again for one that is held: from then on
        these are told.
        """
        with self._lock:
            known = self._held.get(identifier)
            last_good = max(claimed_at, known.last_good) if known is not None and known.token == token else claimed_at
            self._held[identifier] = _Held(token, on_end, on_call, last_good)

    def sent_at(self, beat: int) -> float | None:
        """When this heartbeat was sent; monotonic seconds, None where it is none of the last.

        A lease that was granted after it came lasts from then on at least, as if it had been renewed by it.
        """
        return self._sent.get(beat)

    def drop(self, identifier: UUID) -> None:
        with self._lock:
            self._held.pop(identifier, None)

    def _run(self) -> None:
        try:
            asyncio.run(self._beat())
        except BaseException:
            # Without a heartbeat every run of this process is lost: better a clean start than a quiet half-life.
            log.exception("the heartbeat died; ending the process")
            os._exit(EXIT_HEARTBEAT_DIED)

    async def _beat(self) -> None:
        watching = asyncio.create_task(self._watch(), name="watch")
        try:
            await self._renew_until_stopped(watching)
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """Beside the renewals: one that hangs must not hold up what follows from there being none."""
        while True:
            self._give_up_overdue()
            self._watch_loop()
            await asyncio.sleep(_TICK_SECONDS)

    async def _renew_until_stopped(self, watching: asyncio.Task[None]) -> None:
        connection: Connection | None = None
        next_renewal = 0.0
        while not self._stop.is_set():
            if watching.done():
                watching.result()
            if time.monotonic() >= next_renewal or self._hurries or self._has_due():
                self._hurries = False
                next_renewal = time.monotonic() + RENEW_EVERY.total_seconds()
                connection = await self._renew(connection)
                if connection is None:
                    next_renewal = time.monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
        if connection is not None:
            with suppress(*_TRANSIENT):
                async with asyncio.timeout(RENEW_EVERY.total_seconds()), breakage_told(connection):
                    await tell_gone(connection, self._node)
                    await connection.close()

    async def _renew(self, connection: Connection | None) -> Connection | None:
        """Renew all leases; return the connection to use next time, None where it broke."""
        with self._lock:
            held = {identifier: lease.token for identifier, lease in self._held.items() if not lease.told}
        sent = self._number_beat()
        try:
            async with asyncio.timeout(RENEW_EVERY.total_seconds()):
                connection = connection or await connect(
                    self._url, name=f"{self._node.name} heartbeat", timeout_seconds=RENEW_EVERY.total_seconds()
                )
                async with breakage_told(connection):
                    await tell_seen(connection, replace(self._node, capacity=self._offered(), beat=self._beat_number))
                    renewed = await renew(connection, held)
        except _TRANSIENT as error:
            log.warning("renewal failed", error=str(error) or type(error).__name__)
            if connection is not None:
                connection.terminate()
            return None
        self._note(held, renewed, sent)
        return connection

    def _number_beat(self) -> float:
        """Count a heartbeat that is about to be sent; returns the time."""
        self._beat_number += 1
        sent = self._sent[self._beat_number] = time.monotonic()
        self._sent.pop(self._beat_number - _BEATS_KEPT, None)
        return sent

    def _has_due(self) -> bool:
        """Whether a lease is to be renewed before the next heartbeat: that of a run that began just before the last."""
        due = time.monotonic() - RENEW_EVERY.total_seconds()
        with self._lock:
            return any(lease.last_good <= due and not lease.told for lease in self._held.values())

    def _offered(self) -> int:
        """None while the event loop is blocked: it would hear of no run, and each would come back seconds later."""
        is_blocked = time.monotonic() - self._loop_answered > RENEW_EVERY.total_seconds()
        return 0 if is_blocked else self._places()

    def _note(self, asked: Mapping[UUID, UUID], renewed: list[Renewed], sent: float) -> None:
        good = {lease.id: lease for lease in renewed}
        with self._lock:
            for identifier, token in asked.items():
                lease = self._held.get(identifier)
                if lease is None or lease.token != token:
                    continue  # dropped while this was asked, or even claimed anew: nothing was asked about that
                if identifier not in good:
                    self._end(lease, Ending.LOST)
                    continue
                lease.last_good = sent
                if good[identifier].cancel_requested:
                    self._end(lease, Ending.CANCELLED, final=False)
                elif good[identifier].is_called and lease.on_call is not None:
                    self._on_loop(lease.on_call)

    def _give_up_overdue(self) -> None:
        now = time.monotonic()
        with self._lock:
            for lease in self._held.values():
                if now - lease.last_good > GIVE_UP_AFTER.total_seconds():
                    self._end(lease, Ending.LOST)

    def _end(self, lease: _Held, ending: Ending, *, final: bool = True) -> None:
        """Tell the holder on its own loop; a cancelled run stays leased until its work is gone."""
        if lease.told:
            return
        lease.told = final
        self._on_loop(partial(lease.on_end, ending))

    def _on_loop(self, callback: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(callback)

    def _watch_loop(self) -> None:
        assert self._loop is not None
        if time.monotonic() - self._loop_answered > BLOCKED_FOR_GOOD.total_seconds():
            log.error("the event loop is blocked for good; ending the process")
            os._exit(EXIT_BLOCKED)
        with suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(self._answered)

    def _answered(self) -> None:
        self._loop_answered = time.monotonic()
