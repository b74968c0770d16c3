"""The stack under chaos: the local stack, but that a process which died is never left lying for long, and that two
schedulers share the work, as any number may.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from quarterdeck.stack import LocalStack, StackInfo, StackOptions
from quarterdeck.stack.services import ServiceSpecs
from quarterdeck.stack.supervisor import Backoff, Notice, Supervisor

TURN_DELAY_MS = 250
"""A model slow enough for most faults to meet runs under way."""
_LONGEST_BACKOFF_SECONDS = 2.0
_SECOND = "scheduler-2"
_DELAY_VARIABLE = "QUARTERDECK_OFFLINE_TURN_DELAY_MS"


class ChaosStack(LocalStack):
    """With its usual back-off, of up to 30 s, a stack that is killed all the time would soon only wait."""

    def __init__(self, options: StackOptions) -> None:
        super().__init__(options)
        self.notices: list[Notice] = []
        self._supervisor = Supervisor(
            on_notice=self.notices.append,
            on_change=self._record,
            backoff=partial(Backoff, ceiling=_LONGEST_BACKOFF_SECONDS),
        )

    async def _start_services(self, specs: ServiceSpecs) -> StackInfo:
        info = await super()._start_services(specs)
        await self._start_on(
            1, lambda port: replace(specs.scheduler(port), name=_SECOND, log=self._folder.log(_SECOND))
        )
        return info

    def _stop_order(self) -> list[list[str]]:
        return [[_SECOND], *super()._stop_order()]


@asynccontextmanager
async def chaos_stack(data_dir: Path, *, agents: int) -> AsyncIterator[ChaosStack]:
    """Embedded servers and the offline model, whatever the environment says; stopped at the end."""
    options = StackOptions(
        data_dir=data_dir,
        agents=agents,
        database_url=None,
        nats_url=None,
        anthropic_api_key=None,
        anthropic_base_url=None,
        claude_model=None,
    )
    before = os.environ.get(_DELAY_VARIABLE)
    os.environ[_DELAY_VARIABLE] = str(TURN_DELAY_MS)
    try:
        async with ChaosStack(options) as stack:
            yield stack
    finally:
        os.environ.pop(_DELAY_VARIABLE)
        if before is not None:
            os.environ[_DELAY_VARIABLE] = before


def processes_of(data_dir: Path) -> list[str]:
    """Every other process that names the folder in its command line or environment, or that is in it."""
    own = os.getpid()
    return [words for process in psutil.process_iter() if process.pid != own and (words := _traces(process, data_dir))]


def _traces(process: psutil.Process, data_dir: Path) -> str:
    """The process in words where it belongs to the folder; empty where it does not or may not be looked at."""
    folder = str(data_dir)
    try:
        command = process.cmdline()
        told = [*command, *process.environ().values(), process.cwd()]
        if process.status() != psutil.STATUS_ZOMBIE and any(folder in word for word in told):
            return f"pid {process.pid}: {' '.join(command) or process.name()}"
    except (psutil.Error, OSError):
        return ""
    return ""
