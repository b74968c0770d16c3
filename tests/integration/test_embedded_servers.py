"""The embedded servers themselves: started, killed, found, ended, and what the fixtures make of them."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest

from quarterdeck.stack import postgres
from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.errors import StackStartError
from quarterdeck.stack.identity import KEEP, Identity, check_reach, launch_command, unprivileged_identity
from quarterdeck.stack.processes import ProcessSpec
from tests.integration.waiting import DEADLINE_SECONDS, until, wait_gone

NOBODY = Identity("user", 65534, 65534)

RUN_SERVERS = """
import asyncio, json, pathlib, sys
from quarterdeck.stack.embedded import EmbeddedServers
async def main():
    async with EmbeddedServers(pathlib.Path(sys.argv[1]), durable=False) as servers:
        pids = {name: child.pid for name, child in servers.running.items()}
        print(json.dumps(pids), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def nothing_left_behind(servers: EmbeddedServers) -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    gone, left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=5)
    assert not left, gone


@pytest.fixture
def folder() -> Iterator[Path]:
    """Unlike ``tmp_path``, one that other accounts can be let into."""
    path = Path(tempfile.mkdtemp(prefix="quarterdeck-test-"))
    yield path
    shutil.rmtree(path)


async def query(database_url: str, sql: str) -> object:
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        return await connection.fetchval(sql, timeout=5)
    finally:
        await connection.close(timeout=5)


async def count_messages(nats_url: str) -> int:
    connection = await nats.connect(nats_url, allow_reconnect=False)
    try:
        return (await connection.jetstream().stream_info("KEPT")).state.messages
    finally:
        await connection.close()


async def publish_one(nats_url: str) -> None:
    connection = await nats.connect(nats_url, allow_reconnect=False)
    try:
        stream = connection.jetstream()
        await stream.add_stream(name="KEPT", subjects=["kept.>"])
        await stream.publish("kept.one", b"1")
    finally:
        await connection.close()


async def test_the_database_is_a_real_one_with_passwords_and_durable_settings(folder: Path):
    async with EmbeddedServers(folder, servers=("postgres",)) as running:
        url = running.database_url
        assert str(await query(url, "SHOW server_version")).startswith("18.")
        for name in ("fsync", "synchronous_commit", "data_checksums", "full_page_writes"):
            assert await query(url, f"SHOW {name}") == "on"
        assert await query(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        with pytest.raises(asyncpg.InvalidPasswordError):
            await query(url.replace(url.split(":")[2].split("@")[0], "wrong"), "SELECT 1")


async def test_nats_has_jetstream_and_wants_the_password(nats_server: EmbeddedServers):
    await publish_one(nats_server.nats_url)
    reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.nats.port)
    writer.write(b'CONNECT {"verbose": false}\r\nPING\r\n')
    async with asyncio.timeout(DEADLINE_SECONDS):
        _, refusal = await reader.readline(), await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert refusal == b"-ERR 'Authorization Violation'\r\n"
    config = json.loads((nats_server.folder / "nats.json").read_text())
    assert config["max_payload"] == 2**20
    assert (nats_server.folder / "nats.json").stat().st_mode & 0o077 == 0


async def test_after_a_sigkill_the_next_start_on_the_folder_has_all_that_was_committed(folder: Path):
    async with EmbeddedServers(folder) as running:
        url = running.database_url
        await query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        await publish_one(running.nats_url)
        await running.kill("postgres")
        await running.kill("nats")
        assert (folder / "postgres" / "postmaster.pid").exists()
    async with EmbeddedServers(folder) as again:
        assert await query(again.database_url, "SELECT answer FROM kept") == 42
        assert await count_messages(again.nats_url) == 1
        assert again.database_url.split("@")[0] == url.split("@")[0]


async def test_a_reused_pid_in_the_stale_lock_file_is_no_obstacle(folder: Path):
    async with EmbeddedServers(folder, durable=False, servers=("postgres",)) as running:
        await running.kill("postgres")
        pid_file = folder / "postgres" / "postmaster.pid"
        _, *rest = pid_file.read_text().splitlines(keepends=True)
        pid_file.write_text("".join([f"{os.getppid()}\n", *rest]))
        await running.start("postgres")
        assert await query(running.database_url, "SELECT 1") == 1


async def test_a_server_still_running_on_the_folder_is_found_and_ended_first(folder: Path):
    async with EmbeddedServers(folder, durable=False) as running:
        specs = [running.postgres.spec(), running.nats.spec()]
        await running.kill("postgres")
        await running.kill("nats")
        orphans = [start_untied(spec) for spec in specs]
        await until(lambda: {name_of(orphan) for orphan in orphans} == {"postgres", "nats-server"})
        await running.start("postgres")
        await running.start("nats")
        assert [orphan.wait(DEADLINE_SECONDS) for orphan in orphans] == [0, 0]
        assert await query(running.database_url, "SELECT 1") == 1


def start_untied(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    """Start it so that nothing ends it when its starter dies."""
    command = launch_command(spec.command, identity=spec.identity, death_signal=0)
    with spec.log.open("ab") as log:
        return subprocess.Popen(
            command, env=dict(spec.environment), cwd=spec.folder, stdout=log, stderr=log, process_group=0
        )


def name_of(process: subprocess.Popen[bytes]) -> str:
    return psutil.Process(process.pid).name()


async def test_when_the_supervisor_is_killed_the_servers_go_too_and_the_folder_can_be_used_again(folder: Path):
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN_SERVERS, str(folder)), stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pids = json.loads(await asyncio.wait_for(supervisor.stdout.readline(), DEADLINE_SECONDS))
    assert all(psutil.pid_exists(pid) for pid in pids.values())
    supervisor.kill()
    await supervisor.wait()
    await wait_gone(*pids.values())
    async with EmbeddedServers(folder, durable=False) as again:
        assert await query(again.database_url, "SELECT 1") == 1


async def test_a_cluster_half_made_is_made_anew(folder: Path):
    half = folder / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    async with EmbeddedServers(folder, durable=False, servers=("postgres",)) as running:
        assert await query(running.database_url, "SELECT 1") == 1
    assert not half.exists()


async def test_it_runs_as_another_account_where_namespaces_are_refused(folder: Path, monkeypatch):
    identity = NOBODY if can_become_nobody(folder) else KEEP
    monkeypatch.setattr(postgres, "unprivileged_identity", lambda: as_given(identity))
    async with EmbeddedServers(folder, durable=False, servers=("postgres",)) as running:
        uid = psutil.Process(running.running["postgres"].pid).uids().real
        assert uid == (identity.owner[0])
        assert await query(running.database_url, "SELECT 1") == 1
    monkeypatch.undo()
    # The next start may do without: the files change hands again.
    async with EmbeddedServers(folder, durable=False, servers=("postgres",)) as running:
        assert await query(running.database_url, "SELECT 1") == 1


def can_become_nobody(folder: Path) -> bool:
    folder.chmod(0o711)
    with contextlib.suppress(StackStartError):
        check_reach(postgres.binary("postgres"), NOBODY)
        return os.geteuid() == 0
    return False


async def as_given(identity: Identity) -> Identity:
    return identity


async def test_the_server_never_believes_to_be_root():
    identity = await unprivileged_identity()
    assert identity.uid != 0 or os.geteuid() != 0


async def test_each_test_has_a_database_of_its_own(database_url: str, servers: EmbeddedServers):
    await query(database_url, "CREATE TABLE mine AS SELECT 1 AS one")
    name = database_url.rpartition("/")[2]
    assert await query(servers.database_url, f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == 1
    assert await query(servers.database_url, "SELECT to_regclass('mine')") is None
