"""Tells the scheduler of what was just written. A message that is lost costs time alone: its sweep finds the work."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from services.contracts.subjects import COMMAND_CANCEL, COMMAND_MESSAGE, COMMAND_SUBMIT
from services.contracts.v1.commands_pb2 import JobCommand
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.telemetry import logger

log = logger("gateway.commands")

DRAIN_SECONDS = 1.0
MOST_WAITING = 1_000
"""While NATS hangs, further ones are left to the scheduler's sweep."""


class Commands:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: dict[str, Outgoing] = {}
        self._sending: asyncio.Task[None] | None = None

    def submitted(self, job_id: UUID) -> None:
        """Send without waiting. One message for all the jobs of a moment: it makes the scheduler look at them all."""
        self._send(COMMAND_SUBMIT, JobCommand(job_id=str(job_id)), str(job_id), instead_of=COMMAND_SUBMIT)

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

    def _send(self, subject: str, command: JobCommand, message_id: str, *, instead_of: str | None = None) -> None:
        """``instead_of``: the name of a message that this one makes superfluous while it is not sent yet."""
        if len(self._waiting) >= MOST_WAITING:
            return
        self._waiting[instead_of or message_id] = Outgoing(subject, command.SerializeToString(), message_id)
        if self._sending is None:
            self._sending = asyncio.create_task(self._publish_waiting(), name="commands")

    async def _publish_waiting(self) -> None:
        try:
            while self._waiting:
                messages, self._waiting = list(self._waiting.values()), {}
                try:
                    await self._bus.publish_in_order(messages)
                except BusUnavailableError as error:
                    log.debug("commands not sent; the scheduler finds the work", error=str(error))
        finally:
            self._sending = None

    async def drain(self) -> None:
        """Wait up to 1 s for what is under way."""
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=DRAIN_SECONDS)
