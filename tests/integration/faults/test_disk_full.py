"""PostgreSQL's disk is full: work is refused, none is half accepted, and all goes on once there is room."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from tests.integration.conftest import migrate
from tests.integration.faults.conftest import StartGateway, StartService
from tests.integration.faults.ledger import (
    assert_every_event_was_published_once,
    assert_every_job_was_done_once,
    rows_of,
    until_drained,
)
from tests.integration.faults.processes import AGENT, PATIENCE_SECONDS, SCHEDULER, SUBMITTED, Submitter

pytestmark = pytest.mark.timeout(180)
DISK_SIZE = "192m"
JOBS_BEFORE = 5
REFUSALS = 3
PROMPT_BYTES = 6_000
"""A page of PostgreSQL's for each job, nearly, so that the disk is soon missed; random, so that none of it is saved."""


@dataclass
class Demand:
    """Submits each job once, and keeps what was answered."""

    client: httpx.AsyncClient
    accepted: dict[str, set[UUID]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """The prompt of each key that was answered 503."""

    async def until_refused(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.refused) < times:
                await self._submit(str(uuid4()), secrets.token_hex(PROMPT_BYTES // 2))

    async def _submit(self, key: str, prompt: str) -> None:
        answer = await self.client.post(
            "/v1/jobs", json={"prompt": prompt, "kind": "task"}, headers={"Idempotency-Key": key}
        )
        assert answer.status_code in (*SUBMITTED, 503), f"{answer.status_code}: {answer.text}"
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            self.refused[key] = prompt
        else:
            self.accepted[key] = {UUID(answer.json()["id"])}

    async def submit_the_refused(self) -> None:
        """Each under its key, until it is accepted."""
        submitter = Submitter(self.client, self.accepted)
        for key, prompt in self.refused.items():
            await submitter.submit(prompt, key=key)


async def run(*command: str) -> str:
    """Run a command as root; returns what it said where it failed, else nothing."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return errors.decode().strip() or f"exit code {process.returncode}" if process.returncode else ""


@asynccontextmanager
async def mounted(folder: Path) -> AsyncIterator[None]:
    """A file system of ``DISK_SIZE`` at ``folder``; a test that cannot have one is skipped."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small file system cannot be mounted here: that takes root and the command `mount`")
    if refusal := await run("mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE},mode=0711", "small-disk", str(folder)):
        pytest.skip(f"a small file system cannot be mounted here: {refusal}")
    try:
        yield
    finally:
        if await run("umount", str(folder)):
            assert not await run("umount", "-l", str(folder))


@pytest.fixture
async def small_postgres() -> AsyncIterator[EmbeddedServers]:
    """A durable Postgres, with the schema, on a disk of its own that is small."""
    folder = Path(tempfile.mkdtemp(prefix="quarterdeck-"))  # not in pytest's, which other accounts cannot enter
    async with AsyncExitStack() as stack:
        stack.callback(folder.rmdir)
        await stack.enter_async_context(mounted(folder))
        servers = await stack.enter_async_context(EmbeddedServers(folder, servers=("postgres",)))
        await migrate(servers.database_url)
        yield servers


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No byte is free on the disk of ``folder``."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1024**2, 4096):
            with until_full():
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@pytest.fixture
async def disk_database(small_postgres: EmbeddedServers) -> AsyncIterator[Database]:
    database = Database(small_postgres.database_url, size=2, name="test")
    yield database
    await database.close()


async def test_a_full_disk(
    small_postgres: EmbeddedServers, disk_database: Database, bus: Bus, start_gateway: StartGateway, start: StartService
) -> None:
    gateway = await start_gateway(DATABASE_URL=small_postgres.database_url)
    services = [await start(module, DATABASE_URL=small_postgres.database_url) for module in (SCHEDULER, AGENT)]
    await gateway.until_healthy()
    demand = Demand(gateway.client)
    submitter = Submitter(gateway.client, demand.accepted)
    for _ in range(JOBS_BEFORE):
        await submitter.submit()
    await until_drained(disk_database)

    with filled(small_postgres.folder):
        await demand.until_refused(REFUSALS)
        stored = {row["id"] for row in await rows_of(disk_database, "SELECT id FROM jobs")}
        keys = {row["key"] for row in await rows_of(disk_database, "SELECT key FROM idempotency_keys")}
    assert stored == {job_id for answers in demand.accepted.values() for job_id in answers}
    assert keys == set(demand.accepted), "nothing is left of what was refused"

    await demand.submit_the_refused()
    await until_drained(disk_database)
    await assert_every_job_was_done_once(disk_database, demand.accepted)
    await assert_every_event_was_published_once(disk_database, bus)
    assert [service.process.returncode for service in services] == [None, None], "nobody died of it"
