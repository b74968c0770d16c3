"""Processes whose wall clocks are an hour off: leases go by Postgres's clock, and local waits by the monotonic one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.jobs.scheduling import LEASE
from services.runtime.postgres import Database
from tests.integration.faults.answering_agent import BLOCK
from tests.integration.faults.conftest import StartGateway, StartService
from tests.integration.faults.ledger import assert_every_job_was_done_once, rows_of, until_drained
from tests.integration.faults.processes import AGENT, SCHEDULER, Submitter
from tests.integration.waiting import until_async

pytestmark = pytest.mark.timeout(150)
HOUR = 3600
SOURCE = Path(__file__).with_name("skewed_clock.c")
TOLERANCE_SECONDS = 60


@pytest.fixture(scope="session")
def skewed_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that moves the clock of the process it is preloaded into."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("moving one process's clock takes a C compiler, `cc`, and Linux")
    library = tmp_path_factory.mktemp("clock") / "skewed_clock.so"
    subprocess.run((compiler, "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"), check=True)
    return library


def skewed(library: Path, seconds: int) -> dict[str, str]:
    return {"LD_PRELOAD": str(library), "SKEW_SECONDS": str(seconds)}


def test_the_clock_is_moved(skewed_clock: Path) -> None:
    words = "import time; print(time.time(), time.monotonic())"
    output = subprocess.check_output((sys.executable, "-c", words), env=os.environ | skewed(skewed_clock, HOUR))
    wall, monotonic = map(float, output.split())
    assert abs(wall - time.time() - HOUR) < TOLERANCE_SECONDS
    assert abs(monotonic - time.monotonic()) < TOLERANCE_SECONDS


@pytest.mark.parametrize("seconds", [-HOUR, pytest.param(HOUR, marks=pytest.mark.slow)])
async def test_a_lease_is_neither_lost_nor_kept_by_a_clock_that_is_wrong(
    start: StartService, start_gateway: StartGateway, database: Database, skewed_clock: Path, seconds: int
) -> None:
    """Scheduler and agents are two hours apart. The first agent is killed; the next renews for longer than a lease."""
    gateway = await start_gateway(**skewed(skewed_clock, seconds))
    await gateway.until_healthy()
    submitter = Submitter(gateway.client)
    await start(SCHEDULER, **skewed(skewed_clock, -seconds))
    doomed = await start(AGENT, **skewed(skewed_clock, seconds))
    lost = await submitter.submit(f"{BLOCK}{2 * LEASE.total_seconds()}")

    async def is_claimed() -> bool:
        return bool(await rows_of(database, "SELECT FROM leases WHERE taken"))

    await until_async(is_claimed)
    doomed.process.kill()
    await doomed.process.wait()
    await rows_of(database, f"UPDATE jobs SET prompt = '{BLOCK}{LEASE.total_seconds() + 2}' WHERE id = '{lost}'")
    await start(AGENT, **skewed(skewed_clock, seconds))

    await until_drained(database)

    await assert_every_job_was_done_once(database, submitter.accepted)
    (run,) = await rows_of(database, "SELECT attempt, times_lost FROM runs")
    assert (run["attempt"], run["times_lost"]) == (2, 1), "lost once, and then kept for longer than a lease"
