"""What was used and is not stored is kept until it is, and told of once more rather than not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.agent.unstored_use import UnstoredUse
from services.jobs.errors import LeaseLostError
from services.jobs.models import ModelUse, Usage, VoidUse
from services.runtime.postgres import StoreUnavailableError


def use(tokens: int = 1) -> ModelUse:
    return ModelUse(Usage(tokens), "a-model")


class Store:
    def __init__(self) -> None:
        self.told: list[list[VoidUse]] = []
        self.fails: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def count_void(self, uses: Sequence[VoidUse]) -> None:
        self.told.append(list(uses))
        await self.open.wait()
        if self.fails is not None:
            raise self.fails

    @property
    def tokens(self) -> list[list[int]]:
        return [[void.use.tokens.total for void in uses] for uses in self.told]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def unstored(store: Store) -> UnstoredUse:
    return UnstoredUse(store.count_void)


async def test_what_was_thrown_away_is_stored_once(store: Store, unstored: UnstoredUse):
    await unstored.store()
    assert store.told == []
    unstored.threw_away(use(1))
    await unstored.store()
    await unstored.store()
    unstored.threw_away(use(2))
    await unstored.settle()
    assert store.tokens == [[1], [2]]
    assert [void.turn for uses in store.told for void in uses] == [None, None]


async def test_a_reply_is_told_of_at_the_end_unless_its_checkpoint_has_told_of_it(store: Store, unstored: UnstoredUse):
    one, two = use(), use()  # as like as two replies can be
    unstored.replied(one, turn=7)
    unstored.replied(two, turn=8)
    await unstored.store()
    assert store.told == []
    unstored.stored(None)
    unstored.stored(one)
    await unstored.settle()
    assert [[void.turn for void in uses] for uses in store.told] == [[8]]


async def test_while_postgres_is_away_it_is_kept_under_its_id(store: Store, unstored: UnstoredUse):
    store.fails = StoreUnavailableError("away")
    unstored.threw_away(use())
    await unstored.store()
    store.fails = None
    await unstored.store()
    first, second = store.told
    assert [void.id for void in first] == [void.id for void in second]
    await unstored.store()
    assert len(store.told) == 2


async def test_a_lost_lease_is_told_but_at_the_end(store: Store, unstored: UnstoredUse):
    store.fails = LeaseLostError("lost")
    unstored.threw_away(use())
    with pytest.raises(LeaseLostError):
        await unstored.store()
    await unstored.settle()


async def test_what_is_broken_off_or_comes_meanwhile_is_stored_later(store: Store, unstored: UnstoredUse):
    store.open.clear()
    unstored.threw_away(use(1))
    task = asyncio.create_task(unstored.store())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    task = asyncio.create_task(unstored.store())
    await asyncio.sleep(0)
    unstored.threw_away(use(1))
    store.open.set()
    await task
    await unstored.settle()
    assert store.tokens == [[1], [1], [1]]
    first, second, third = (uses[0].id for uses in store.told)
    assert first == second != third


async def test_the_end_waits_for_two_seconds_at_most(
    store: Store, unstored: UnstoredUse, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.agent.unstored_use._SETTLE_SECONDS", 0.01)
    store.open.clear()
    unstored.threw_away(use())
    async with asyncio.timeout(30):
        await unstored.settle()
