"""Drives each contender alike: installs it, submits to it, lets a worker work, and asks its own tables how it went.
All of them on the servers of one lean stack.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import asyncpg

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.processes import ChildProcess, ProcessSpec, run_to_end
from tests.bench.cpu import CpuMeter
from tests.bench.kinds import Kind
from tests.bench.lean_stack import LeanStack, running
from tests.bench.machine import ROOT
from tests.bench.measure import Bench, JobFailedError
from tests.bench.roles import REPORT, Report

CLIENTS = 32
DRAIN_SECONDS = 60
_LOOK_EVERY_SECONDS = 0.1
_SUBMIT_SECONDS = 60
_numbers = count(1)


@dataclass(frozen=True)
class Span:
    """From the first job's start to the last one's end, as the tables have it; epoch seconds."""

    started: float
    ended: float


class Contender:
    def __init__(self, kind: Kind, stack: LeanStack, bench: Bench, database_url: str) -> None:
        self.kind = kind
        self.cpu: defaultdict[str, float] = defaultdict(float)
        """Seconds that each process has used under ``metered``."""
        self.database_url = database_url
        self._bench = bench
        self._processes = stack.processes
        self._own = {
            "DATABASE_URL": database_url,
            "NATS_URL": stack.nats_url,
            "BENCH_ADDRESS": stack.address,
            "BENCH_API_KEY": stack.api_key,
            **kind.variables,
        }

    @classmethod
    async def install(cls, kind: Kind, stack: LeanStack, bench: Bench) -> Contender:
        """In a database of its own, where it is not ours."""
        url = await stack.new_database(kind.name) if kind.installs else stack.database_url
        made = cls(kind, stack, bench, url)
        if kind.installs:
            spec, _ = made._spec(kind.worker, "install")
            await run_to_end(spec, seconds=_SUBMIT_SECONDS)
        return made

    async def submit(self, jobs: int) -> Report:
        """So many jobs as fast as they are taken from ``CLIENTS`` clients."""
        return await self._submitted("submit", f"--jobs={jobs}", f"--clients={CLIENTS}")

    async def pace(self, jobs: int, *, rate: float, within_seconds: float = _SUBMIT_SECONDS) -> Report:
        """So many jobs, ``rate`` a second."""
        return await self._submitted("pace", f"--jobs={jobs}", f"--rate={rate}", within_seconds=within_seconds)

    async def _submitted(self, *words: str, within_seconds: float = _SUBMIT_SECONDS) -> Report:
        spec, path = self._spec(self.kind.submitter, *words)
        await run_to_end(spec, seconds=within_seconds)
        report = Report.read(path)
        self.cpu["submitter"] += report.cpu_seconds
        return report

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """With a worker; it may take a moment before it takes the first job."""
        spec, path = self._spec(self.kind.worker, "work")
        async with running(spec) as child:
            try:
                yield Worker(child, path)
            except JobFailedError as error:
                raise JobFailedError(f"{error}; the worker's last log lines:\n{child.log_tail()}") from error

    async def drained(self, since: float, jobs: int) -> Span:
        """Wait until all of the ``jobs`` that were submitted since then have ended; raises JobFailedError."""
        connection = await asyncpg.connect(self.database_url)
        try:
            end = time.monotonic() + DRAIN_SECONDS
            while await connection.fetchval(self.kind.left, since):
                if time.monotonic() > end:
                    raise JobFailedError(f"{self.kind.name} did not finish its jobs within {DRAIN_SECONDS} s")
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
            row = await connection.fetchrow(self.kind.span, since)
        finally:
            await connection.close()
        assert row is not None
        started, ended, finished = row
        if finished != jobs:
            raise JobFailedError(f"{self.kind.name} finished {finished} of {jobs} jobs; see its log")
        return Span(started, ended)

    @asynccontextmanager
    async def metered(self, worker: Worker | None = None) -> AsyncIterator[None]:
        """Add to ``cpu`` what the processes use meanwhile, and ``worker`` if one is given, which must be warm."""
        pids = {name: self._processes[name] for name in self.kind.uses}
        meter = CpuMeter(pids if worker is None else pids | {"worker": worker.child.pid})
        yield
        for name, seconds in meter.used().items():
            self.cpu[name] += seconds

    def _spec(self, module: str, *words: str) -> tuple[ProcessSpec, Path]:
        """With where its report will be."""
        name = f"{self.kind.name}-{words[0]}-{next(_numbers)}"
        path = self._bench.scratch / f"{name}.json"
        spec = ProcessSpec(
            name=name,
            command=(sys.executable, "-m", module, *words),
            environment=base_environment() | self._own | {REPORT: str(path)},
            log=self._bench.scratch / f"{name}.log",
            folder=ROOT,
        )
        return spec, path


@dataclass(frozen=True)
class Worker:
    child: ChildProcess
    path: Path

    async def stop(self) -> Report:
        """End it, and read what it reports."""
        await self.child.stop()
        if not self.path.exists():
            raise self.child.failure("left no report")
        return Report.read(self.path)
