"""Waiting for what other processes do: polled, since it sets no event here, and always with a deadline."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import psutil

DEADLINE_SECONDS = 20
POLL_SECONDS = 0.02


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110  see above
            await asyncio.sleep(POLL_SECONDS)


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():  # noqa: ASYNC110  see above
            await asyncio.sleep(POLL_SECONDS)


def runs(pid: int) -> bool:
    """Whether a process is there and is no zombie that its parent has not looked at yet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


async def wait_gone(*pids: int) -> None:
    await until(lambda: not any(runs(pid) for pid in pids))
