"""The stack's life as seen from outside: up, looked at, killed, up again, down. Services are stand-ins."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from quarterdeck.stack import detached
from quarterdeck.stack.detached import StackStatus, read_status, start_detached, stop_detached
from quarterdeck.stack.errors import StackLockedError, StackNotRunningError, StackStartError
from quarterdeck.stack.info import StackInfo, read_info
from quarterdeck.stack.lock import is_held
from quarterdeck.stack.options import DataFolder, StackOptions
from tests.integration.waiting import until, until_async

STAND_IN_STACK = (sys.executable, str(Path(__file__).with_name("stand_in_stack.py")))


@pytest.fixture
async def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StackOptions]:
    monkeypatch.setattr(detached, "COMMAND", STAND_IN_STACK)
    yield StackOptions(data_dir=tmp_path / "data", agents=2, database_url=None, nats_url=None, anthropic_api_key=None)
    with contextlib.suppress(StackNotRunningError):
        await stop_detached(tmp_path / "data")
    assert processes_on(tmp_path / "data") == []


def processes_on(data_dir: Path) -> list[str]:
    """Every process that works in the data folder, however it came to be."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(data_dir) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {process.name()}")
    return found


async def until_status(data_dir: Path, condition: Callable[[StackStatus], bool]) -> StackStatus:
    async def holds() -> bool:
        return condition(await read_status(data_dir))

    await until_async(holds)
    return await read_status(data_dir)


async def wait_free(data_dir: Path) -> None:
    await until(lambda: not is_held(DataFolder(data_dir).lock))


def end(pid: int, *signals: signal.Signals) -> None:
    """Send these to it, if it has not ended by itself since its parent is gone."""
    with contextlib.suppress(ProcessLookupError):
        for each in signals:
            os.kill(pid, each)


async def database_answers(info: StackInfo) -> bool:
    connection = await asyncpg.connect(info.database_url, timeout=5)
    try:
        return bool(await connection.fetchval("SELECT true", timeout=5))
    finally:
        await connection.close(timeout=5)


async def test_up_status_down(options: StackOptions):
    folder = DataFolder(options.data_dir)
    info = await start_detached(options)
    status = await read_status(options.data_dir)
    names = {"postgres", "nats", "offline-model", "vcs", "scheduler", "agent-1", "agent-2", "gateway"}
    assert status.healthy
    assert {process.name for process in status.processes} == names == set(info.processes)
    assert (info.offline_model, info.model) == (True, "quarterdeck-offline")
    assert await database_answers(info)
    for private in (folder.info, folder.processes, folder.lock):
        assert private.stat().st_mode & 0o077 == 0
    started = time.monotonic()
    await stop_detached(options.data_dir)
    assert time.monotonic() - started < 10
    assert not await asyncio.to_thread(folder.info.exists)
    assert not (await read_status(options.data_dir)).running
    with pytest.raises(StackNotRunningError, match="quarterdeck up"):
        await stop_detached(options.data_dir)


async def test_a_second_one_is_refused_and_harms_nothing(options: StackOptions):
    info = await start_detached(options)
    with pytest.raises(StackLockedError, match=rf"already runs on .*pid {info.pid}, {info.address}"):
        await start_detached(options)
    assert read_info(DataFolder(options.data_dir).info) == info
    assert (await read_status(options.data_dir)).healthy


async def test_after_kill_9_of_everything_the_next_one_goes_on_with_the_same_key(options: StackOptions):
    info = await start_detached(options)
    for pid in (info.pid, *info.processes.values()):
        end(pid, signal.SIGKILL)
    await wait_free(options.data_dir)
    again = await start_detached(options)
    assert (again.api_key, again.pid == info.pid) == (info.api_key, False)
    assert await database_answers(again)


async def test_when_only_the_supervisor_is_killed_its_processes_end(options: StackOptions):
    info = await start_detached(options)
    end(info.pid, signal.SIGKILL)
    await until(lambda: not processes_on(options.data_dir))
    assert not (await read_status(options.data_dir)).running


async def test_orphans_that_outlived_their_supervisor_are_ended_before_anything_starts(options, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAULT", "deaf:vcs")
    info = await start_detached(options)
    end(info.pid, signal.SIGKILL)
    await wait_free(options.data_dir)
    assert psutil.pid_exists(info.processes["vcs"])
    monkeypatch.delenv("STAND_IN_FAULT")
    await start_detached(options)
    log = DataFolder(options.data_dir).log("stack").read_text()
    assert re.search(r"ended what an earlier stack left running: .*\bvcs\b", log)


async def test_a_killed_service_and_database_are_back_by_themselves(options: StackOptions):
    info = await start_detached(options)
    for name in ("scheduler", "postgres"):
        end(info.processes[name], signal.SIGKILL)
    await until_status(options.data_dir, lambda status: not status.healthy)
    status = await until_status(options.data_dir, lambda status: status.healthy)
    restarts = {process.name: process.restarts for process in status.processes}
    assert {name for name, count in restarts.items() if count} == {"scheduler", "postgres"}
    log = DataFolder(options.data_dir).log("stack").read_text()
    assert "scheduler was ended by SIGKILL; starting it again in 0.5 s" in log
    assert status.info is not None
    assert await database_answers(status.info)


async def test_a_service_with_a_wrong_configuration_stops_the_start_with_its_words(options, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAULT", "broken:scheduler")
    with pytest.raises(StackStartError, match=r"(?s)scheduler ended with exit code 2.*QUARTERDECK_SOMETHING: is wrong"):
        await start_detached(options)
    assert processes_on(options.data_dir) == []


async def test_a_taken_port_is_named(options: StackOptions):
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        taken = StackOptions(data_dir=options.data_dir, port=port, database_url=None, nats_url=None)
        with pytest.raises(StackStartError, match=rf"cannot listen on 127.0.0.1:{port}.*choose another --port"):
            await start_detached(taken)


async def test_a_deaf_service_does_not_hold_up_the_end_beyond_ten_seconds(options, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAULT", "deaf:agent-1")
    await start_detached(options)
    started = time.monotonic()
    await stop_detached(options.data_dir)
    assert 2 < time.monotonic() - started < 10


async def test_a_second_signal_ends_everything_at_once(options, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAULT", "deaf:agent-1")
    info = await start_detached(options)
    started = time.monotonic()
    end(info.pid, signal.SIGINT)
    await until_status(options.data_dir, lambda status: status.info is None)
    end(info.pid, signal.SIGINT)
    await wait_free(options.data_dir)
    assert time.monotonic() - started < 2


async def test_told_to_stop_while_it_starts_it_leaves_nothing(options: StackOptions):
    starting = asyncio.create_task(start_detached(options))
    await until_status(options.data_dir, lambda status: bool(status.processes))
    await stop_detached(options.data_dir)
    with pytest.raises(StackStartError, match="stopping"):
        await starting
    assert processes_on(options.data_dir) == []
