"""Two things at once end together, whatever ends them."""

from __future__ import annotations

import asyncio

import pytest

from services.agent.side_by_side import side_by_side


class LostError(Exception):
    pass


async def value(of: int) -> int:
    return of


async def failing() -> int:
    raise LostError


async def until_cancelled(noted: list[str]) -> int:
    try:
        await asyncio.Event().wait()
    finally:
        noted.append("ended")
    return 0


async def test_both_are_done() -> None:
    assert await side_by_side(value(1), value(2)) == (1, 2)


async def test_where_one_fails_the_other_is_ended() -> None:
    for first_fails in (True, False):
        noted: list[str] = []
        pair = (failing(), until_cancelled(noted)) if first_fails else (until_cancelled(noted), failing())
        with pytest.raises(LostError):
            await side_by_side(*pair)
        assert noted == ["ended"]


async def test_where_the_caller_is_cancelled_both_are_ended() -> None:
    noted: list[str] = []
    caller = asyncio.create_task(side_by_side(until_cancelled(noted), until_cancelled(noted)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert noted == ["ended", "ended"]
