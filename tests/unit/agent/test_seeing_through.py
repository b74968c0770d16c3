"""An attempt is worked on in the task that sees it through: what stops it ends the work, and nothing that follows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from services.agent.live import Live, Stop
from services.agent.worker import Worker
from services.jobs.errors import LeaseLostError
from services.jobs.models import Hold
from services.runtime.postgres import StoreUnavailableError

HOLD = Hold(UUID(int=1), UUID(int=2), 1, UUID(int=3))
Body = Callable[["Stage"], Awaitable[None]]


class Stage:
    """The work and what its end is told to; notes what is done, each step of which takes a turn of the loop or more."""

    def __init__(self, body: Body) -> None:
        self.notes: list[str] = []
        self.reached: asyncio.Queue[str] = asyncio.Queue()
        self._body = body

    async def step(self, word: str) -> None:
        """Take a while, and note that nothing has cut it off."""
        self.reached.put_nowait(word)
        for _ in range(10):
            await asyncio.sleep(0)
        self.notes.append(word)

    async def until(self, word: str) -> None:
        async with asyncio.timeout(5):
            while await self.reached.get() != word:
                pass

    async def work(self) -> None:
        self.reached.put_nowait("work")
        await self._body(self)

    def kill(self) -> None:
        self.notes.append("kill")

    def left(self) -> None:
        return None

    async def release(self) -> None:
        await self.step("release")

    def hear(self) -> None:
        """Nobody says anything."""

    async def cancelled(self, hold: Hold, *, left: object) -> None:
        assert (hold, left) == (HOLD, None)
        await self.step("cancelled")

    async def interrupted(self, hold: Hold) -> None:
        assert hold == HOLD
        await self.step("interrupted")

    async def claim(self, orders: list[Any]) -> list[Any]:
        self.notes.append("own up")
        return []

    def hold(self, run_id: UUID, token: UUID, **_: Any) -> None:
        assert (run_id, token) == (HOLD.run_id, HOLD.token)

    def drop(self, run_id: UUID) -> None:
        assert run_id == HOLD.run_id
        self.notes.append("drop")


class _Run:
    hold = HOLD


async def begin(monkeypatch: pytest.MonkeyPatch, body: Body) -> tuple[Stage, Live, asyncio.Task[None]]:
    """With the work under way."""
    stage = Stage(body)
    anything: Any = stage
    claim: Any = _Run()
    monkeypatch.setattr("services.agent.worker.known_run", lambda claim: claim)
    worker = Worker(lambda _: anything, running=anything, bus=anything, heartbeat=anything, name="agent", capacity=1)
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr("services.agent.worker.time.monotonic", lambda: now)
    task = asyncio.create_task(worker._see_through(claim, now))
    await stage.until("work")
    return stage, worker._live[HOLD.run_id], task


async def for_ever(_: Stage) -> None:
    await asyncio.Event().wait()


async def with_a_clean_up(stage: Stage) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await stage.step("clean-up")


def failing(error: Exception) -> Body:
    async def fail(_: Stage) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None

    return fail


async def in_spite_of_it(stage: Stage) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await stage.step("end of its own")


@pytest.mark.parametrize(
    ("stop", "body", "expected"),
    [
        (Stop.CANCELLED, with_a_clean_up, ["clean-up", "release", "cancelled", "drop"]),
        (Stop.INTERRUPTED, with_a_clean_up, ["clean-up", "interrupted", "drop", "release"]),
        (Stop.LOST, for_ever, ["kill", "drop", "release"]),
        (Stop.INTERRUPTED, in_spite_of_it, ["end of its own", "drop", "release"]),
        (Stop.CANCELLED, failing(LeaseLostError("gone")), ["release", "cancelled", "drop"]),
        (Stop.CANCELLED, failing(StoreUnavailableError("away")), ["release", "own up", "drop"]),
        (Stop.INTERRUPTED, failing(StoreUnavailableError("away")), ["own up", "drop", "release"]),
    ],
)
async def test_what_stops_it_is_told_and_nothing_of_it_stays(
    monkeypatch: pytest.MonkeyPatch, stop: Stop, body: Body, expected: list[str]
) -> None:
    stage, live, task = await begin(monkeypatch, body)
    live.end(stop)
    await task

    assert stage.notes == expected
    assert task.cancelling() == 0, "what follows in this task must be able to have deadlines of its own"


async def test_a_bug_in_the_clean_up_of_a_cancelled_one_leaves_nothing_on_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, live, task = await begin(monkeypatch, failing(RuntimeError("a bug")))
    live.end(Stop.CANCELLED)
    with pytest.raises(RuntimeError, match="a bug"):
        await task

    assert stage.notes == ["release", "own up", "drop"]


@pytest.mark.parametrize("moment", ["clean-up", "release", "cancelled"])
async def test_a_lease_that_is_lost_later_cuts_off_the_clean_up_alone(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    stage, live, task = await begin(monkeypatch, with_a_clean_up)
    live.end(Stop.CANCELLED)
    await stage.until(moment)
    live.end(Stop.LOST)
    await task

    whole = {
        "clean-up": ["kill", "drop", "release"],
        "release": ["clean-up", "kill", "release", "drop"],
        "cancelled": ["clean-up", "release", "kill", "cancelled", "drop"],
    }
    assert stage.notes == whole[moment]


@pytest.mark.parametrize("stop", [None, Stop.INTERRUPTED])
async def test_the_end_of_the_process_ends_it_and_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, stop: Stop | None
) -> None:
    stage, live, task = await begin(monkeypatch, for_ever)
    if stop is not None:
        live.end(stop)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert stage.notes == ["drop"]
