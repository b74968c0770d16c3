"""NATS is down, loses its store, or has no room: work is accepted all the time, and done once NATS is back."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts import subjects
from services.contracts.words import EventKind
from services.runtime.jetstream import Bus, BusUnavailableError, Outgoing
from services.runtime.postgres import Database, Record
from tests.integration.faults.conftest import StartGateway, StartService
from tests.integration.faults.ledger import assert_every_job_was_done_once, published, rows_of, until_drained
from tests.integration.faults.processes import AGENT, SCHEDULER, Submitter
from tests.integration.jobs.sequences import SEQUENCED
from tests.integration.waiting import until, until_async

pytestmark = [pytest.mark.timeout(150), pytest.mark.slow]
JOBS = 30
LARGE_BYTES = 4 * 1024**3
"""Reserved, not used."""
ROOM_BYTES = 2 * 1024**2
PIECE_BYTES = 500_000


async def test_a_nats_that_was_down_and_lost_all_delays_and_loses_nothing(
    start: StartService, submitter: Submitter, database: Database, bus: Bus, nats_server: EmbeddedServers
) -> None:
    for module in (SCHEDULER, AGENT):
        await start(module)
    for _ in range(JOBS):
        await submitter.submit()
    await nats_server.kill("nats")
    for _ in range(JOBS):
        await submitter.submit()
    shutil.rmtree(nats_server.folder / "nats")
    await nats_server.start("nats")

    await until_drained(database)

    await assert_every_job_was_done_once(database, submitter.accepted)
    await until(lambda: bus.is_connected)
    in_order = [(str(row["id"]), row["place"]) for row in await _events(database)]
    kept = await published(bus)
    assert kept == in_order[-len(kept) :], "the new stream has the last events, each once, in order"
    assert len(kept) > JOBS


async def _events(database: Database) -> list[Record]:
    return await rows_of(database, f"SELECT id, place FROM {SEQUENCED} e ORDER BY place")


class Disk:
    """A file system of its own whose size can change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, size_bytes: int, *, remount: bool = True) -> bool:
        """Whether that was possible here."""
        options = f"size={size_bytes}" + (",remount" if remount else "")
        command = ("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder))
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def leave_room_for(self, size_bytes: int) -> None:
        assert self.resize(shutil.disk_usage(self.folder).used + size_bytes)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Large enough for what the streams may grow to: NATS makes none that might not find room."""
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    if shutil.which("mount") is None or not disk.resize(LARGE_BYTES, remount=False):
        pytest.skip("mounting a file system takes `mount` and the right to, as root")
    yield disk
    subprocess.run(("umount", "-l", str(disk.folder)), check=True)


@pytest.fixture
async def cramped_nats(disk: Disk) -> AsyncIterator[EmbeddedServers]:
    async with EmbeddedServers(disk.folder, servers=("nats",)) as servers:
        yield servers


async def test_a_full_disk_under_nats_stops_no_submission(
    start: StartService, start_gateway: StartGateway, database: Database, disk: Disk, cramped_nats: EmbeddedServers
) -> None:
    gateway = await start_gateway(NATS_URL=cramped_nats.nats_url)
    await gateway.until_healthy()
    submitter = Submitter(gateway.client)
    for module in (SCHEDULER, AGENT):
        await start(module, NATS_URL=cramped_nats.nats_url)
    await submitter.submit()
    await until_drained(database)
    disk.leave_room_for(ROOM_BYTES)
    await _use_up(cramped_nats)

    for _ in range(JOBS):
        await submitter.submit()
    assert disk.resize(LARGE_BYTES)
    # A nats-server that could not write once gives its stream up until it is started again.
    await cramped_nats.kill("nats")
    await cramped_nats.start("nats")

    await until_drained(database)
    await assert_every_job_was_done_once(database, submitter.accepted)


async def _use_up(nats: EmbeddedServers) -> None:
    """Publish until NATS stores no more."""
    subject = subjects.event("ballast", "_", EventKind.DELTA)
    bus = Bus(nats.nats_url, name="test")
    await bus.start(wait=timedelta(seconds=20))

    async def is_refused() -> bool:
        try:
            await bus.publish(Outgoing(subject, bytes(PIECE_BYTES), secrets.token_hex()))
        except BusUnavailableError:
            return True
        return False

    try:
        await until_async(is_refused)
    finally:
        await bus.close()
