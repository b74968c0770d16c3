"""The whole local stack with its real services: up, in use, a service killed, everything killed, down."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from quarterdeck.stack.detached import StackStatus, read_status, start_detached, stop_detached
from quarterdeck.stack.errors import StackNotRunningError
from quarterdeck.stack.info import StackInfo
from quarterdeck.stack.lock import is_held
from quarterdeck.stack.options import DataFolder, StackOptions

# In every test run test_faults.py kills the same processes, and all of them, under jobs; test_cli.py has a whole stack
# up, used and gone; and what is told of it, in which time, is held to in test_local_stack.py.
pytestmark = pytest.mark.slow
DEADLINE_SECONDS = 30


def options_for(data_dir: Path) -> StackOptions:
    return StackOptions(data_dir=data_dir, agents=2, database_url=None, nats_url=None, anthropic_api_key=None)


@pytest.fixture
async def options(tmp_path: Path) -> AsyncIterator[StackOptions]:
    made = options_for(tmp_path / "data")
    yield made
    try:
        await stop_detached(made.data_dir)
    except StackNotRunningError:
        return


async def answers(info: StackInfo, path: str, api_key: str | None) -> int:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        aiohttp.ClientSession(info.address, headers=headers, timeout=timeout) as session,
        session.get(path) as answer,
    ):
        return answer.status


async def until_status(data_dir: Path, condition: Callable[[StackStatus], bool]) -> StackStatus:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if condition(status := await read_status(data_dir)):
                return status
            await asyncio.sleep(0.05)


async def wait_free(data_dir: Path) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while is_held(DataFolder(data_dir).lock):  # noqa: ASYNC110  another process holds it
            await asyncio.sleep(0.02)


async def test_the_whole_stack_is_up_served_and_gone_again(options: StackOptions):
    info = await start_detached(options)
    names = {"postgres", "nats", "offline-model", "vcs", "scheduler", "agent-1", "agent-2", "gateway"}
    assert set(info.processes) == names
    assert (await read_status(options.data_dir)).healthy
    assert await answers(info, "/health", None) == 200
    assert await answers(info, "/v1/jobs", info.api_key) == 200
    assert await answers(info, "/v1/jobs", "qd_wrong") == 401
    loop = asyncio.get_running_loop()
    started = loop.time()
    await stop_detached(options.data_dir)
    assert loop.time() - started < 10
    assert not [name for name, pid in info.processes.items() if psutil.pid_exists(pid) and not is_zombie(pid)]


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StackOptions]:
    """Of a stack that is up, and of whose processes each test kills another."""
    made = options_for(tmp_path_factory.mktemp("stack"))
    await start_detached(made)
    yield made
    await stop_detached(made.data_dir)


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("name", ["nats", "postgres", "vcs", "gateway", "scheduler", "agent-1", "offline-model"])
async def test_whatever_is_killed_comes_back_and_all_is_healthy(shared: StackOptions, name: str):
    before = await read_status(shared.data_dir)
    assert before.healthy
    assert before.info is not None
    assert [each.restarts for each in before.processes if each.name == name] == [0]
    os.kill(before.info.processes[name], signal.SIGKILL)
    restarted = await until_status(
        shared.data_dir,
        lambda status: status.healthy and any(each.restarts for each in status.processes if each.name == name),
    )
    assert restarted.info is not None
    assert await answers(restarted.info, "/v1/jobs", before.info.api_key) == 200


async def test_after_kill_9_of_everything_the_next_up_goes_on(options: StackOptions):
    info = await start_detached(options)
    for pid in (info.pid, *info.processes.values()):
        os.kill(pid, signal.SIGKILL)
    await wait_free(options.data_dir)
    again = await start_detached(options)
    assert again.api_key == info.api_key
    assert await answers(again, "/v1/jobs", info.api_key) == 200
