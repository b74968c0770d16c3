"""Tells the scheduler of what was just written. A message that is lost costs time alone: its sweep finds the work."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID, uuid4

from services.contracts.subjects import COMMAND_CANCEL, COMMAND_MESSAGE, COMMAND_SUBMIT
from services.contracts.v1.commands_pb2 import JobCommand
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.telemetry import logger

log = logger("gateway.commands")

DRAIN_SECONDS = 1.0
LINGER_SECONDS = 0.02
MOST_WAITING = 1_000
"""While NATS hangs, further ones are left to the scheduler's sweep."""


class Commands:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: dict[str, Outgoing] = {}
        self._sending: asyncio.Task[None] | None = None
        self._urgent = asyncio.Event()

    def submitted(self, job_id: UUID) -> None:
        """Send soon. One message for all the jobs of a moment, since it makes the scheduler look at them all.

        It is the one that lasts: the bell that the scheduler acts upon at once is rung where the job is stored.
        """
        if COMMAND_SUBMIT not in self._waiting:
            command = JobCommand(job_id=str(job_id))
            self._send(COMMAND_SUBMIT, command, str(job_id), name=COMMAND_SUBMIT, is_urgent=False)

    def cancel_requested(self, job_id: UUID, run_id: UUID | None = None) -> None:
        """Send without waiting. ``run_id``: only this run of the job."""
        command = JobCommand(job_id=str(job_id), run_id=str(run_id or ""))
        self._send(COMMAND_CANCEL, command, f"{run_id or job_id}:cancel")

    def message_sent(self, job_id: UUID, run_id: UUID) -> None:
        """Send without waiting."""
        self._send(COMMAND_MESSAGE, JobCommand(job_id=str(job_id), run_id=str(run_id)), f"{run_id}:{uuid4()}")

    def limits_changed(self) -> None:
        """Send without waiting: more may be admitted now."""
        self._send(COMMAND_SUBMIT, JobCommand(), f"limits:{uuid4()}")

    def _send(
        self,
        subject: str,
        command: JobCommand,
        message_id: str,
        *,
        name: str | None = None,
        is_urgent: bool = True,
    ) -> None:
        """``name``: what it waits under; its ``message_id`` where None."""
        if len(self._waiting) >= MOST_WAITING:
            return
        self._waiting[name or message_id] = Outgoing(subject, command.SerializeToString(), message_id)
        if is_urgent:
            self._urgent.set()
        if self._sending is None:
            self._sending = asyncio.create_task(self._publish_waiting(), name="commands")

    async def _publish_waiting(self) -> None:
        try:
            while self._waiting:
                await self._linger()
                messages, self._waiting = list(self._waiting.values()), {}
                try:
                    await self._bus.publish_in_order(messages)
                except BusUnavailableError as error:
                    log.debug("commands not sent; the scheduler finds the work", error=str(error))
        finally:
            self._sending = None

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._urgent.wait()
        self._urgent.clear()

    async def drain(self) -> None:
        """Send what waits, for up to 1 s."""
        self._urgent.set()
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=DRAIN_SECONDS)
