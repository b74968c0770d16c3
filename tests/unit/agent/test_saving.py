"""What is held back goes with the next checkpoint, unless that is long in coming; and nothing of it is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from services.agent.saving import Saving
from services.jobs.errors import LeaseLostError
from services.jobs.models import Checkpoint, ModelUse, SavedTree, Standing, StoredMessage, Usage

REPLY = StoredMessage(1, "assistant", b"reply")
RESULTS = StoredMessage(2, "user", b"results")
NEXT_REPLY = StoredMessage(3, "assistant", b"next reply")
USE = ModelUse(Usage(input_tokens=3), "model")


class Store:
    """Remembers what it was given; ``open`` holds it up, ``fails`` refuses."""

    def __init__(self) -> None:
        self.stored: list[Checkpoint] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fails = False
        self.asked = asyncio.Event()

    async def __call__(self, checkpoint: Checkpoint) -> Standing:
        self.asked.set()
        await self.open.wait()
        if self.fails:
            raise LeaseLostError("lost")
        self.stored.append(checkpoint)
        return Standing(has_unread=False, is_budgeted=False)


async def quick() -> str:
    return "results"


async def test_a_quick_tools_reply_and_results_are_one_checkpoint():
    store = Store()
    saving = Saving(store)
    saving.hold(Checkpoint(messages=[REPLY], usage=USE))
    assert await saving.beside(quick()) == "results"
    saving.begin(Checkpoint(messages=[RESULTS]))
    await saving.done()
    (stored,) = store.stored
    assert (stored.messages, stored.usage) == ([REPLY, RESULTS], USE)


async def test_a_slow_tools_reply_is_stored_while_it_runs():
    store = Store()
    saving = Saving(store)
    saving.hold(Checkpoint(messages=[REPLY], usage=USE))

    async def until_stored() -> None:
        async with asyncio.timeout(30):
            await store.asked.wait()

    await saving.beside(until_stored())
    assert store.stored == [Checkpoint(messages=[REPLY], usage=USE)]
    await saving.save(Checkpoint(messages=[RESULTS]))
    assert store.stored[1:] == [Checkpoint(messages=[RESULTS])]


async def test_a_slow_tool_is_broken_off_where_its_reply_is_refused():
    store = Store()
    store.fails = True
    saving = Saving(store)
    saving.hold(Checkpoint(messages=[REPLY], usage=USE))
    with pytest.raises(LeaseLostError):
        async with asyncio.timeout(30):
            await saving.beside(asyncio.Event().wait())


async def test_what_is_held_is_stored_when_the_loop_ends():
    store = Store()
    saving = Saving(store)
    saving.hold(Checkpoint(messages=[REPLY], usage=USE))
    await saving.settle()
    assert store.stored == [Checkpoint(messages=[REPLY], usage=USE)]


async def test_a_checkpoint_under_way_is_finished_when_the_loop_ends():
    store = Store()
    store.open.clear()
    saving = Saving(store)
    saving.begin(Checkpoint(messages=[REPLY]))
    asyncio.get_running_loop().call_soon(store.open.set)
    await saving.settle()
    assert store.stored == [Checkpoint(messages=[REPLY])]


async def test_a_store_that_hangs_holds_the_end_up_for_a_moment_only():
    store = Store()
    store.open.clear()
    saving = Saving(store)
    saving.begin(Checkpoint(messages=[REPLY]))
    async with asyncio.timeout(30):
        await saving.settle()
    assert store.stored == []


async def test_a_reply_that_comes_while_the_worktree_is_looked_at_goes_with_the_results_before_it():
    store = Store()
    saving = Saving(store)
    looked = asyncio.Event()

    async def making() -> Checkpoint:
        await looked.wait()
        return Checkpoint(messages=[RESULTS], tree=SavedTree(b"patch", {}))

    saving.begin_making(making)
    assert await saving.ahead(quick()) == "results"
    asyncio.get_running_loop().call_soon(looked.set)
    await saving.save(Checkpoint(messages=[NEXT_REPLY], usage=USE))
    (stored,) = store.stored
    assert (stored.messages, stored.usage) == ([RESULTS, NEXT_REPLY], USE)
    assert stored.tree == SavedTree(b"patch", {})


async def test_a_reply_that_comes_while_the_results_before_it_are_stored_is_stored_behind_them():
    store = Store()
    store.open.clear()
    saving = Saving(store)
    saving.begin(Checkpoint(messages=[RESULTS]))
    await store.asked.wait()
    asyncio.get_running_loop().call_soon(store.open.set)
    await saving.save(Checkpoint(messages=[NEXT_REPLY], usage=USE))
    assert [each.messages for each in store.stored] == [[RESULTS], [NEXT_REPLY]]


async def test_two_requests_uses_are_never_one_checkpoints():
    store = Store()
    saving = Saving(store)
    looked = asyncio.Event()

    async def making() -> Checkpoint:
        await looked.wait()
        return Checkpoint(messages=[RESULTS])

    saving.hold(Checkpoint(messages=[REPLY], usage=USE))
    saving.begin_making(making)
    await saving.ahead(quick())
    asyncio.get_running_loop().call_soon(looked.set)
    await saving.save(Checkpoint(messages=[NEXT_REPLY], usage=USE))
    assert [each.messages for each in store.stored] == [[REPLY, RESULTS], [NEXT_REPLY]]


async def test_a_request_is_broken_off_where_the_results_before_it_are_refused():
    store = Store()
    store.fails = True
    saving = Saving(store)
    saving.begin(Checkpoint(messages=[RESULTS]))
    with pytest.raises(LeaseLostError):
        async with asyncio.timeout(30):
            await saving.ahead(asyncio.Event().wait())


async def test_what_is_begun_behind_another_waits_for_it():
    store = Store()
    store.open.clear()
    saving = Saving(store)
    saving.begin(Checkpoint(messages=[RESULTS]))
    saving.begin(Checkpoint(messages=[NEXT_REPLY], usage=USE))
    asyncio.get_running_loop().call_soon(store.open.set)
    await saving.done()
    assert [each.messages for each in store.stored] == [[RESULTS], [NEXT_REPLY]]


async def test_what_was_used_is_waited_for_and_nothing_else():
    store = Store()
    saving = Saving(store)
    store.open.clear()
    saving.begin(Checkpoint(messages=[REPLY]))
    async with asyncio.timeout(30):
        await saving.used()
    saving.hold(Checkpoint(messages=[REPLY], usage=USE))
    saving.begin(Checkpoint(messages=[RESULTS]))
    asyncio.get_running_loop().call_soon(store.open.set)
    await saving.used()
    assert [each.messages for each in store.stored] == [[REPLY], [REPLY, RESULTS]]


async def test_nothing_overtakes_what_was_begun_behind_a_look_at_the_worktree():
    store = Store()
    saving = Saving(store)
    looked = asyncio.Event()

    async def making() -> Checkpoint:
        await looked.wait()
        return Checkpoint(messages=[REPLY])

    saving.begin_making(making)
    saving.begin(Checkpoint(messages=[RESULTS]))
    asyncio.get_running_loop().call_later(0, looked.set)
    await saving.save(Checkpoint(messages=[NEXT_REPLY]))
    assert [message for each in store.stored for message in each.messages] == [REPLY, RESULTS, NEXT_REPLY]


async def test_what_was_refused_is_known_without_what_was_to_go_with_it():
    store = Store()
    store.fails = True
    saving = Saving(store)
    saving.hold(Checkpoint(messages=[REPLY], usage=USE))
    saving.begin(Checkpoint(messages=[RESULTS]))
    with pytest.raises(LeaseLostError):
        await saving.done()
    assert saving.unstored == Checkpoint(messages=[RESULTS])


async def test_nothing_is_unstored_that_was_stored():
    saving = Saving(Store())
    saving.begin(Checkpoint(messages=[RESULTS]))
    await saving.save(Checkpoint(messages=[NEXT_REPLY], usage=USE))
    assert saving.unstored is None
