"""The supervisor, the lock and the record, with real little processes: what dies, what will not, what was left."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.errors import ProcessFailedError, StackLockedError
from quarterdeck.stack.lock import DataFolderLock, is_held, read_holder
from quarterdeck.stack.orphans import ProcessRecord, end_recorded, write_records
from quarterdeck.stack.probes import listening
from quarterdeck.stack.processes import LOG_ROTATE_BYTES, ProcessSpec, run_to_end
from quarterdeck.stack.supervisor import Backoff, Notice, Supervisor
from tests.integration.waiting import DEADLINE_SECONDS, runs, until, wait_gone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def notices() -> asyncio.Queue[Notice]:
    return asyncio.Queue()


@pytest.fixture
async def supervisor(notices: asyncio.Queue[Notice]) -> AsyncIterator[Supervisor]:
    made = Supervisor(on_notice=notices.put_nowait, backoff=lambda: Backoff(first=0.02, ceiling=0.08))
    yield made
    await made.stop_all(at_once=True)


def script(folder: Path, code: str, **changes: Any) -> ProcessSpec:
    values: dict[str, Any] = {
        "name": "tiny",
        "command": (sys.executable, "-S", "-c", code),
        "environment": base_environment(),
        "log": folder / "logs" / "tiny.log",
        "folder": folder,
        "stop": ((signal.SIGTERM, 1.0),),
        "misconfigured_exit": 2,
    }
    return ProcessSpec(**values | changes)


async def next_notice(notices: asyncio.Queue[Notice]) -> Notice:
    return await asyncio.wait_for(notices.get(), DEADLINE_SECONDS)


async def test_what_dies_is_started_again_ever_later(folder, supervisor, notices):
    await supervisor.start(script(folder, "raise SystemExit(3)"))
    heard = [await next_notice(notices) for _ in range(4)]
    assert [notice.restart_in_seconds for notice in heard] == [0.02, 0.04, 0.08, 0.08]
    assert {notice.what for notice in heard} == {"ended with exit code 3"}
    assert supervisor.processes["tiny"].restarts >= 3


async def test_a_killed_process_comes_back_as_another_and_is_healthy_again(folder, supervisor, notices):
    first = await supervisor.start(script(folder, "import time; time.sleep(60)"))
    os.kill(first.pid, signal.SIGKILL)
    assert (await next_notice(notices)).what == "was ended by SIGKILL"
    await until(lambda: supervisor.processes["tiny"].state == "running")
    entry = supervisor.processes["tiny"]
    assert (entry.restarts, psutil.pid_exists(entry.child.pid)) == (1, True)
    assert entry.child.pid != first.pid


async def test_a_wrong_configuration_is_not_tried_again(folder, supervisor, notices):
    code = "import sys; print('QUARTERDECK_PORT: must be a number'); sys.exit(2)"
    await supervisor.start(script(folder, code))
    notice = await next_notice(notices)
    assert notice.restart_in_seconds is None
    assert "QUARTERDECK_PORT: must be a number" in str(notice)
    assert (supervisor.processes["tiny"].state, supervisor.processes["tiny"].restarts) == ("failed", 0)


async def test_one_that_dies_before_it_is_ready_fails_at_once_with_its_last_words(folder, supervisor):
    code = "for n in range(30): print('line', n)\nraise SystemExit(1)"
    with pytest.raises(ProcessFailedError, match="tiny ended with exit code 1") as failed:
        await supervisor.start(script(folder, code, probe=listening("127.0.0.1", 1)))
    assert failed.value.log_tail.splitlines() == [f"line {n}" for n in range(10, 30)]
    assert supervisor.processes == {}


async def test_one_that_never_gets_ready_fails_at_its_deadline_and_is_ended(folder, supervisor):
    spec = script(folder, "import time; time.sleep(60)", probe=listening("127.0.0.1", 1), ready_seconds=0.2)
    before = live_children()
    with pytest.raises(ProcessFailedError, match=r"not ready within 0.2 s \(nothing listens on 127.0.0.1:1"):
        await supervisor.start(spec)
    assert live_children() == before


def live_children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if runs(child.pid)}


DEAF_PARENT = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


async def test_one_that_will_not_stop_is_killed_with_its_whole_group(folder, supervisor):
    child = await supervisor.start(script(folder, DEAF_PARENT, stop=((signal.SIGTERM, 0.2),)))
    await until(lambda: child.log_tail().strip().isdecimal())
    grandchild = int(child.log_tail())
    await supervisor.stop("tiny")
    assert child.exit_code == -signal.SIGKILL
    await wait_gone(grandchild)
    assert supervisor.processes["tiny"].state == "stopped"


async def test_a_large_log_is_set_aside_and_the_last_words_are_of_this_run(folder, supervisor):
    log = folder / "logs" / "tiny.log"
    log.parent.mkdir()
    log.write_bytes(b"old\n" * (LOG_ROTATE_BYTES // 4 + 1))
    with pytest.raises(ProcessFailedError) as failed:
        await run_to_end(script(folder, "print('new'); raise SystemExit(1)"), seconds=DEADLINE_SECONDS)
    assert failed.value.log_tail == "new"
    assert log.with_name("tiny.log.1").stat().st_size > LOG_ROTATE_BYTES


async def test_a_command_that_takes_too_long_is_ended(folder):
    with pytest.raises(ProcessFailedError, match=r"did not end within 0.1 s"):
        await run_to_end(script(folder, "import time; time.sleep(60)"), seconds=0.1)


async def test_a_program_that_is_not_there_is_named(folder):
    with pytest.raises(ProcessFailedError, match="cannot start /no/such/program: No such file"):
        await run_to_end(script(folder, "", command=("/no/such/program",)), seconds=DEADLINE_SECONDS)


def test_a_second_stack_on_the_folder_is_refused_by_name(folder: Path):
    lock = DataFolderLock(folder / "lock")
    lock.acquire()
    lock.announce("http://127.0.0.1:8080")
    with pytest.raises(StackLockedError, match=rf"pid {os.getpid()}, http://127.0.0.1:8080.*quarterdeck down"):
        DataFolderLock(folder / "lock").acquire()
    holder = read_holder(folder / "lock")
    assert holder is not None
    assert holder.process() == psutil.Process()
    lock.release()
    assert not is_held(folder / "lock")
    assert read_holder(folder / "lock") is None


def test_the_lock_ends_with_its_process_and_is_not_inherited(folder: Path):
    code = """
import pathlib, subprocess, sys
from quarterdeck.stack.lock import DataFolderLock
DataFolderLock(pathlib.Path(sys.argv[1])).acquire()
print(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], stdout=2).pid)
"""
    outcome = subprocess.run(
        [sys.executable, "-c", code, str(folder / "lock")], stdout=subprocess.PIPE, check=True, timeout=DEADLINE_SECONDS
    )
    grandchild = psutil.Process(int(outcome.stdout))
    try:
        assert not is_held(folder / "lock")
    finally:
        grandchild.kill()


def test_recorded_processes_that_still_run_are_ended(folder: Path):
    command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    orphan = subprocess.Popen(command, process_group=0)
    created = psutil.Process(orphan.pid).create_time()
    records = [
        ProcessRecord("vcs", orphan.pid, created, command, "running", 0, signal.SIGTERM),
        ProcessRecord("gone", 2**22 + 1, created, command, "running", 0, signal.SIGTERM),
    ]
    write_records(folder / "processes.json", records)
    # psutil reaps it, being its parent's library: what Popen sees is only that it is gone.
    assert end_recorded(folder / "processes.json", seconds=5) == ["vcs"]
    orphan.wait(DEADLINE_SECONDS)
    assert not psutil.pid_exists(orphan.pid)
