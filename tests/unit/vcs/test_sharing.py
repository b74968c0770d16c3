"""Work that many want is done once, and given up only when nobody wants it any more."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from services.vcs.errors import BusyError
from services.vcs.git.runner import Progress
from services.vcs.mirrors.sharing import SharedWork, file_lock


class Job:
    def __init__(self) -> None:
        self.starts = 0
        self.cancelled = False
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, tell: Progress) -> int:
        self.starts += 1
        self.started.set()
        tell("Working", 50)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self.starts


async def test_callers_with_one_key_share_one_start_and_its_progress() -> None:
    shared, job, told = SharedWork[int](), Job(), list[tuple[str, int]]()
    callers = [asyncio.create_task(shared.run("key", job, lambda *step: told.append(step))) for _ in range(5)]
    await job.started.wait()
    job.may_end.set()
    assert await asyncio.gather(*callers) == [1] * 5
    assert told[0] == ("Working", 50)
    assert await shared.run("key", job) == 2, "what has ended is not given to later callers"


async def test_one_caller_that_leaves_takes_nothing_from_the_other() -> None:
    shared, job = SharedWork[int](), Job()
    leaving, staying = (asyncio.create_task(shared.run("key", job)) for _ in range(2))
    await job.started.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert not job.cancelled
    job.may_end.set()
    assert await staying == 1


async def test_the_last_caller_to_leave_cancels_the_work() -> None:
    shared, job = SharedWork[int](), Job()
    callers = [asyncio.create_task(shared.run("key", job)) for _ in range(2)]
    await job.started.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert job.cancelled


async def test_a_failure_reaches_every_caller() -> None:
    async def fail(_: Progress) -> int:
        raise BusyError("no")

    shared = SharedWork[int]()
    results = await asyncio.gather(*(shared.run("key", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [BusyError] * 3


async def test_a_lock_that_is_held_is_waited_for_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    async with file_lock(path, timeout=timedelta(seconds=1)):
        with pytest.raises(BusyError, match=r"held lock for 0\.05 s"):
            async with file_lock(path, timeout=timedelta(seconds=0.05)):
                pytest.fail("two holders")
    async with file_lock(path, timeout=timedelta(0)):
        pass


async def test_work_that_lasts_goes_on_without_callers_and_is_joined() -> None:
    shared, job = SharedWork[int](), Job()
    leaving = asyncio.create_task(shared.run("key", job, lasting=True))
    await job.started.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert shared.is_under_way("key")
    joining = asyncio.create_task(shared.run("key", job))
    job.may_end.set()
    assert await joining == 1
    assert not shared.is_under_way("key")


async def test_closing_ends_work_that_lasts() -> None:
    shared, job = SharedWork[int](), Job()
    caller = asyncio.create_task(shared.run("key", job, lasting=True))
    await job.started.wait()
    caller.cancel()
    await asyncio.wait([caller])
    await shared.close()
    assert job.cancelled


async def test_a_lock_is_shared_among_those_who_share_it_and_with_nobody_else(tmp_path: Path) -> None:
    path, at_once = tmp_path / "lock", timedelta(0)
    async with file_lock(path, timeout=at_once, shared=True), file_lock(path, timeout=at_once, shared=True):
        with pytest.raises(BusyError):
            async with file_lock(path, timeout=at_once):
                pytest.fail("held alone among others")
    async with file_lock(path, timeout=at_once):
        with pytest.raises(BusyError):
            async with file_lock(path, timeout=at_once, shared=True):
                pytest.fail("shared with who holds it alone")
