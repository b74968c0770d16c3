"""Calls that come together are carried out together; each gets its own answer."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import pytest

from services.runtime.batching import Batcher, Rest


class AwayError(Exception):
    pass


class Doubling:
    """Doubles numbers, a batch at a time, when let; an odd one is refused, a negative one spoils its whole batch."""

    def __init__(self, rest: Rest | None = None) -> None:
        self.batches: list[list[int]] = []
        self.may_go = asyncio.Event()
        self.is_away = False
        self.batcher = Batcher[int, int](self._carry_out, most=4, transient=(AwayError,), rest=rest)

    async def _carry_out(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(numbers))
        await self.may_go.wait()
        if self.is_away:
            raise AwayError
        if any(number < 0 for number in numbers):
            raise ArithmeticError
        return [ValueError(number) if number % 2 else 2 * number for number in numbers]

    def ask(self, *numbers: int) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.batcher(number)) for number in numbers]


async def test_a_call_alone_waits_for_no_company() -> None:
    doubling = Doubling()
    doubling.may_go.set()

    assert await doubling.batcher(2) == 4
    assert await doubling.batcher(4) == 8
    assert doubling.batches == [[2], [4]]


async def test_what_comes_meanwhile_goes_together_up_to_the_most() -> None:
    doubling = Doubling()
    tasks = doubling.ask(2, 4, 6, 8, 10, 12, 14)
    doubling.may_go.set()

    assert await asyncio.gather(*tasks) == [4, 8, 12, 16, 20, 24, 28]
    assert sorted(number for batch in doubling.batches for number in batch) == [2, 4, 6, 8, 10, 12, 14]
    assert max(len(batch) for batch in doubling.batches) <= 4
    assert len(doubling.batches) <= 3


async def test_an_item_that_is_refused_takes_no_other_with_it() -> None:
    doubling = Doubling()
    doubling.may_go.set()

    answers = await asyncio.gather(*doubling.ask(2, 3, 4), return_exceptions=True)

    assert answers[::2] == [4, 8]
    assert isinstance(answers[1], ValueError)


async def test_one_that_spoils_its_batch_is_found_by_itself() -> None:
    doubling = Doubling()
    tasks = doubling.ask(0, 2, -1, 4)
    doubling.may_go.set()

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [answers[0], answers[1], answers[3]] == [0, 4, 8]
    assert isinstance(answers[2], ArithmeticError)


async def test_while_the_store_is_away_all_are_told_at_once() -> None:
    doubling = Doubling()
    doubling.is_away = True
    doubling.may_go.set()

    answers = await asyncio.gather(*doubling.ask(2, 4, 6), return_exceptions=True)

    assert [type(answer) for answer in answers] == [AwayError] * 3
    assert len(doubling.batches) <= 2


async def test_a_caller_that_leaves_does_not_stop_the_others() -> None:
    doubling = Doubling()
    leaving, staying = doubling.ask(2, 4)
    await asyncio.sleep(0)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    doubling.may_go.set()

    assert await staying == 8
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await doubling.batcher(6) == 12


async def test_after_a_batch_of_many_the_next_begins_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    has_rested = asyncio.Event()

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await has_rested.wait()

    doubling = Doubling(Rest(timedelta(hours=1), many=3))
    doubling.may_go.set()
    assert await doubling.batcher(2) == 4
    monkeypatch.setattr("services.runtime.batching.asyncio.sleep", rest)
    assert await asyncio.gather(*doubling.ask(2, 4, 6)) == [4, 8, 12], "their answers do not wait"
    tasks = doubling.ask(8, 10)
    for _ in range(10):
        await asyncio.wait(tasks, timeout=0)
    assert doubling.batches == [[2], [2, 4, 6]]
    has_rested.set()

    assert await asyncio.gather(*tasks) == [16, 20]
    assert doubling.batches[2:] == [[8, 10]]
    assert [3_500 < seconds <= 3_600 for seconds in rests] == [True]


async def test_a_batch_that_is_full_already_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    carried_out: list[int] = []

    async def rest(_: float) -> None:
        carried_out.append(len(doubling.batches))

    doubling = Doubling(Rest(timedelta(hours=1), many=3))
    tasks = doubling.ask(2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24)
    await asyncio.wait(tasks, timeout=0)
    monkeypatch.setattr("services.runtime.batching.asyncio.sleep", rest)
    doubling.may_go.set()

    assert await asyncio.gather(*tasks) == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48]
    assert [len(batch) for batch in doubling.batches] == [4, 4, 4]
    assert carried_out == [3], "it rests only when nobody waits any more"
