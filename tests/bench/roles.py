"""The two roles that a contender's processes play, submitter and worker, and the report that each leaves at its end.

Ours and the peers' are alike in all but the calls that submit and take a job: so many of the first at once, or so many
a second, and each job carries when it was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson
import uvloop

REPORT = "BENCH_REPORT"
"""The variable that names the file for the report."""
SENT_DIGITS = 6
_STOP_SECONDS = 5


@dataclass(frozen=True)
class Report:
    """What a process did. Times are epoch seconds, so that those of several processes can be compared.

    ``began``, ``ended``: a submitter's first submit and its last answer. ``cpu_seconds``: its own. ``pickups``: when
    each job that a worker took was sent, and when it was taken.
    """

    began: float
    ended: float
    cpu_seconds: float
    pickups: list[tuple[float, float]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """At once or not at all: whoever waits for the file finds all of it."""
        half = path.with_suffix(".half")
        half.write_bytes(orjson.dumps(asdict(self)))
        half.rename(path)

    @classmethod
    def read(cls, path: Path) -> Report:
        return cls(**orjson.loads(path.read_bytes()))


Submit = Callable[[str], Awaitable[object]]
"""Submits a job that carries this word, and returns once it is accepted."""
PickUp = Callable[[str], None]
"""To be told the word of a job when the job is taken."""


def play(
    *,
    submitting: Callable[[], AbstractAsyncContextManager[Submit]] | None = None,
    working: Callable[[PickUp], Awaitable[object]] | None = None,
    installing: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Play the role that the command line asks for: `install`, `submit`, `pace` or `work` (until SIGTERM)."""
    asked = _parser().parse_args()
    match asked.role:
        case "submit" if submitting is not None:
            uvloop.run(_submit(submitting, lambda submit: _all_at_once(submit, asked.jobs, asked.clients)))
        case "pace" if submitting is not None:
            uvloop.run(_submit(submitting, lambda submit: _so_many_a_second(submit, asked.rate, asked.jobs)))
        case "work" if working is not None:
            uvloop.run(_work(working))
        case "install" if installing is not None:
            uvloop.run(_awaited(installing()))
        case role:
            raise SystemExit(f"this contender has no role {role!r}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    submit = roles.add_parser("submit")
    submit.add_argument("--jobs", type=int, required=True)
    submit.add_argument("--clients", type=int, required=True, help="how many submit at once")
    pace = roles.add_parser("pace")
    pace.add_argument("--jobs", type=int, required=True)
    pace.add_argument("--rate", type=float, required=True, help="submits a second, whatever becomes of them")
    roles.add_parser("work")
    roles.add_parser("install")
    return parser


async def _awaited(work: Awaitable[object]) -> None:
    await work


async def _submit(
    opened: Callable[[], AbstractAsyncContextManager[Submit]], submit_all: Callable[[Submit], Awaitable[object]]
) -> None:
    async with opened() as submit:
        began, cpu = time.time(), time.process_time()
        await submit_all(submit)
        Report(began, time.time(), time.process_time() - cpu).write(Path(os.environ[REPORT]))


async def _all_at_once(submit: Submit, jobs: int, clients: int) -> None:
    """Each client has one submit under way at any time, until ``jobs`` are in."""
    left = iter(range(jobs))

    async def client() -> None:
        for _ in left:
            await submit(_now())

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def _so_many_a_second(submit: Submit, rate: float, jobs: int) -> None:
    """An open loop: a slow answer does not hold the next submit up."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(jobs):
            await asyncio.sleep(began + number / rate - time.perf_counter())
            group.create_task(_awaited(submit(_now())))


def _now() -> str:
    return f"{time.time():.{SENT_DIGITS}f}"


async def _work(working: Callable[[PickUp], Awaitable[object]]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    began, cpu = time.time(), time.process_time()
    pickups: list[tuple[float, float]] = []

    def pick_up(sent: str) -> None:
        pickups.append((float(sent), time.time()))

    work = asyncio.ensure_future(working(pick_up))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
        raise RuntimeError("the worker ended on its own")
    Report(began, time.time(), time.process_time() - cpu, pickups).write(Path(os.environ[REPORT]))
    work.cancel()
    await asyncio.wait([work], timeout=_STOP_SECONDS)
