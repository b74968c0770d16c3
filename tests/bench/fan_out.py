"""Event fan-out: from an event's publication until it is at each of many SSE clients, and what a client costs."""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psutil

from quarterdeck.client import Client
from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.ports import free_ports
from quarterdeck.stack.processes import ChildProcess, ProcessSpec
from services.contracts.subjects import event, events_of_job
from services.contracts.words import EventKind
from services.jobs.eventlog import encode_event
from services.runtime.jetstream import Bus, Outgoing
from tests.bench.cpu import CpuMeter
from tests.bench.lean_stack import LeanStack, lean_stack, running
from tests.bench.machine import ROOT
from tests.bench.measure import Bench, JobFailedError, Result, median_ms, percentile
from tests.bench.sse_watchers import marked

NAME = "fan_out"
CLIENTS = 1_000
RATE = 50.0
GOAL_MS = 250.0
GOAL_KIB = 25.0
_WARM_UP_CLIENTS = 10
_PADDING = 200
_POLL_SECONDS = 0.05
_READY_SECONDS = 40
_PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class FannedOut:
    """``latencies``: seconds, one for each event and client. ``bytes_a_client``: of memory, since the server was warm.
    ``cpu``: seconds of it a second, by process.
    """

    latencies: Sequence[float]
    bytes_a_client: float
    cpu: dict[str, float]


async def measure(bench: Bench) -> Result:
    clients, seconds = bench.samples(CLIENTS, 200), bench.samples(15, 4)
    async with lean_stack(bench, NAME) as stack, _bus(stack) as bus:
        async with Client(stack.address, stack.api_key) as client:
            job_id = str((await client.submit("fan out", kind="task")).id)
        gateway = Load(bench, bus, job_id, stack.api_key, stack.processes["gateway"])
        await gateway.warm_up(f"{stack.address}/v1/events")
        bench.say(f"{NAME}: {clients:,} clients of all events")
        of_all = await gateway.take(f"{stack.address}/v1/events", clients, seconds)
        bench.say(f"{NAME}: {clients:,} clients of one job")
        of_job = await gateway.take(f"{stack.address}/v1/jobs/{job_id}/events", clients, seconds)
        bench.say(f"{NAME}: a bare fan-out")
        async with _bare(bench, stack, job_id) as (address, pid):
            bare = Load(bench, bus, job_id, stack.api_key, pid)
            await bare.warm_up(address)
            floor = await bare.take(address, clients, seconds)
    return _result(clients, of_all, of_job, floor)


def _result(clients: int, of_all: FannedOut, of_job: FannedOut, floor: FannedOut) -> Result:
    p99, kib = percentile(of_all.latencies, 99) * 1000, of_all.bytes_a_client / 1024
    return Result(
        name=NAME,
        what=f"publish to client, {clients:,} clients of all events, {RATE:g} events/s, p99",
        figure=p99,
        unit="ms",
        compared_with="a bare loop that writes what NATS sends to as many sockets, p99",
        baseline=percentile(floor.latencies, 99) * 1000,
        goal=f"≤ {GOAL_MS:g} ms, ≤ {GOAL_KIB:g} KiB a client",
        met=p99 <= GOAL_MS and kib <= GOAL_KIB,
        details={
            "p50": median_ms(of_all.latencies),
            "slowest": max(of_all.latencies) * 1000,
            "one job p50": median_ms(of_job.latencies),
            "one job p99": percentile(of_job.latencies, 99) * 1000,
            "bare p50": median_ms(floor.latencies),
            "memory (KiB a client)": kib,
            "one job: memory, with what the first load left (KiB a client)": of_job.bytes_a_client / 1024,
            "bare memory (KiB a client)": floor.bytes_a_client / 1024,
            **_cpu("all", of_all),
            **_cpu("one job", of_job),
            **_cpu("bare", floor),
        },
    )


def _cpu(name: str, taken: FannedOut) -> dict[str, float]:
    return {f"{name}: {whose} (% of a core)": used * 100 for whose, used in taken.cpu.items()}


@dataclass
class Load:
    """Publishes deltas of one job, as an agent does. ``pid``: the server's."""

    bench: Bench
    bus: Bus
    job_id: str
    api_key: str
    pid: int
    _warm_bytes: int = 0

    async def warm_up(self, url: str) -> None:
        await self.take(url, _WARM_UP_CLIENTS, 1)
        self._warm_bytes = psutil.Process(self.pid).memory_info().rss

    async def take(self, url: str, clients: int, seconds: float) -> FannedOut:
        """Let ``clients`` watch ``url`` for ``seconds``. Raises JobFailedError where an event did not come."""
        events = int(RATE * seconds)
        folder = self.bench.folder(f"{NAME}-{uuid4().hex}")
        async with running(self._watchers(url, clients, events, folder)) as child:
            await _made(folder / "ready", child)
            meter = CpuMeter({"server": self.pid, "clients": child.pid})
            await self._publish(events)
            cpu = {name: used / seconds for name, used in meter.used().items()}
            memory = psutil.Process(self.pid).memory_info().rss - self._warm_bytes
            await child.wait()
        latencies = array("d", (folder / "report").read_bytes())
        if len(latencies) != events * clients:
            raise JobFailedError(f"{len(latencies):,} of {events * clients:,} events came to the clients of {url}")
        return FannedOut(latencies, memory / clients, cpu)

    def _watchers(self, url: str, clients: int, events: int, folder: Path) -> ProcessSpec:
        words = {
            "url": url,
            "api-key": self.api_key,
            "clients": clients,
            "events": events,
            "seconds": events / RATE + _PATIENCE_SECONDS,
            "ready": folder / "ready",
            "report": folder / "report",
        }
        return _process(self.bench, "watchers", "tests.bench.sse_watchers", words)

    async def _publish(self, events: int) -> None:
        """An open loop of ``RATE`` a second."""
        began = time.perf_counter()
        for number in range(events):
            await asyncio.sleep(began + number / RATE - time.perf_counter())
            await self._publish_one()

    async def _publish_one(self) -> None:
        event_id = str(uuid4())
        data = encode_event(
            event_id=event_id,
            job_id=self.job_id,
            run_id="",
            number=0,
            attempt=1,
            kind=EventKind.DELTA,
            time=datetime.now(UTC),
            data={"text": marked(_PADDING)},
        )
        await self.bus.publish(Outgoing(event(self.job_id, "", EventKind.DELTA), data, event_id))


def _process(bench: Bench, name: str, module: str, words: Mapping[str, object]) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-m", module, *(f"--{key}={value}" for key, value in words.items())),
        environment=base_environment(),
        log=bench.scratch / f"{name}.log",
        folder=ROOT,
    )


async def _made(ready: Path, child: ChildProcess) -> None:
    async with asyncio.timeout(_READY_SECONDS):
        while not ready.exists():  # noqa: ASYNC240  a moment, and nothing else runs here
            if child.exit_code is not None:
                raise child.failure("ended before all of its clients were answered")
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def _bus(stack: LeanStack) -> AsyncIterator[Bus]:
    bus = Bus(stack.nats_url, name="bench")
    await bus.start(wait=timedelta(seconds=10))
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def _bare(bench: Bench, stack: LeanStack, job_id: str) -> AsyncIterator[tuple[str, int]]:
    """The address and pid of a bare fan-out of the job's events."""
    (port,) = free_ports(1)
    words = {"port": port, "nats-url": stack.nats_url, "subject": events_of_job(job_id)}
    async with running(_process(bench, "bare", "tests.bench.bare_fan_out", words)) as child:
        await _listens(port)
        yield f"http://127.0.0.1:{port}/", child.pid


async def _listens(port: int) -> None:
    async with asyncio.timeout(_READY_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                writer.close()
                return
