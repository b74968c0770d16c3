"""Tells the scheduler of what was just written. A message that is lost costs time alone: its sweep finds the work."""

from __future__ import annotations

import asyncio
from uuid import UUID

from services.contracts.subjects import COMMAND_CANCEL, COMMAND_SUBMIT
from services.contracts.v1.commands_pb2 import JobCommand
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.telemetry import logger

log = logger("gateway.commands")

DRAIN_SECONDS = 1.0
MOST_UNDER_WAY = 1_000
"""While NATS hangs, further ones are left to the scheduler's sweep."""


class Commands:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._under_way: set[asyncio.Task[None]] = set()

    def submitted(self, job_id: UUID) -> None:
        """Send without waiting."""
        self._send(COMMAND_SUBMIT, JobCommand(job_id=str(job_id)), str(job_id))

    def cancel_requested(self, job_id: UUID, run_id: UUID | None = None) -> None:
        """Send without waiting. ``run_id``: only this run of the job."""
        command = JobCommand(job_id=str(job_id), run_id=str(run_id or ""))
        self._send(COMMAND_CANCEL, command, f"{run_id or job_id}:cancel")

    def _send(self, subject: str, command: JobCommand, message_id: str) -> None:
        if len(self._under_way) >= MOST_UNDER_WAY:
            return
        message = Outgoing(subject, command.SerializeToString(), message_id)
        task = asyncio.create_task(self._publish(message), name=f"command {message_id}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _publish(self, message: Outgoing) -> None:
        try:
            await self._bus.publish(message)
        except BusUnavailableError as error:
            log.debug("command not sent; the scheduler finds it", subject=message.subject, error=str(error))

    async def drain(self) -> None:
        """Wait up to 1 s for what is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=DRAIN_SECONDS)
