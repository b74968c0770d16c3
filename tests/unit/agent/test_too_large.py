"""A worktree that is too large to be stored: what the model hears of it, and what stands meanwhile."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from services.agent.delivery import Delivery
from services.agent.endings import Finished, RunFailedError
from services.agent.model import Reply
from services.agent.prompts import prompt
from services.agent.recording import STORED_AGAIN
from services.contracts.words import EventKind
from services.jobs.errors import LeaseLostError
from tests.unit.agent.scripted import BIG, Script, StoredRun, call, done, edit, read, reply

DONE = reply(done(99))
TOO_LARGE = prompt("tree_too_large").format(reason=f"{BIG} is too large")
PUT_BACK = prompt("tree_put_back")


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return StoredRun(tmp_path)


def makes_big(number: int) -> Reply:
    return reply(call(number, "write_file", path=BIG, content="…"))


def deletes_big(number: int) -> Reply:
    return reply(call(number, "delete_file", path=BIG))


def texts(message: dict[str, Any]) -> list[str]:
    return [block["text"] for block in message["content"] if block["type"] == "text"]


async def test_the_model_is_told_once_and_again_when_it_is_put_right(run: StoredRun):
    looks = [read(number) for number in (3, 4, 5)]
    model = Script(read(1), makes_big(2), *looks, deletes_big(6), read(7), DONE)
    assert await run.loop(model).run() == Finished("Changed.")
    heard = [texts(message) for message in model.asked_with[-1] if message["role"] == "user"]
    assert heard[1:] == [[], [], [TOO_LARGE], [], [], [], [STORED_AGAIN]]
    lines = [(line["level"], line["message"]) for line in run.told(EventKind.LOG)]
    assert lines == [
        ("warning", f"what is changed from here on is not stored: {BIG} is too large"),
        ("info", "what is changed is stored again"),
    ]


async def test_who_is_done_at_once_has_not_heard_of_it(run: StoredRun):
    loop = run.loop(model := Script(makes_big(1), DONE, deletes_big(2), DONE))
    await loop.run()
    assert loop.has_warning
    assert await loop.go_on("First this.") == Finished("Changed.")
    assert texts(model.asked_with[2][-1]) == [TOO_LARGE, "First this."]
    assert not loop.has_warning, "good news is nothing to wait for"


async def test_what_is_too_large_beside_the_completion_is_told_with_it(run: StoredRun):
    last = reply(call(1, "write_file", path=BIG, content="…"), done(2))
    loop = run.loop(model := Script(last, DONE))
    await loop.run()
    assert loop.has_warning
    await loop.go_on("First this.")
    assert texts(model.asked_with[1][-1]) == [TOO_LARGE, "First this."]


async def test_what_was_changed_meanwhile_is_gone_after_a_break_and_the_model_hears_so(run: StoredRun):
    script = [read(1), reply(edit(2, "a", "b")), makes_big(3), reply(edit(4, "b", "c"))]
    run.lost_after = 7
    with pytest.raises(LeaseLostError):
        await run.loop(Script(*script, read(5), DONE)).run()
    assert any(TOO_LARGE in texts(orjson.loads(message.body)) for message in run.messages if message.role == "user")
    assert run.files[BIG] == "…"
    loop = run.loop(model := Script(*script, read(5), reply(edit(6, "b", "d")), read(7), DONE))
    assert run.files == {"f.txt": "b\n"}, "what was stored before it was too large is there"
    assert loop.has_warning
    await loop.run()
    heard = [texts(message) for message in model.asked_with[-1] if message["role"] == "user"]
    assert heard[-3:] == [[PUT_BACK], [STORED_AGAIN], []]
    assert run.files == {"f.txt": "d\n"}
    assert not run.loop(Script()).has_warning


async def test_what_is_too_large_in_the_last_turn_of_all_is_told_to_who_goes_on_from_it(run: StoredRun):
    """Nobody had heard of it yet: the news goes out with the next results, and there were none."""
    script = [read(1), reply(edit(2, "a", "b"), call(3, "write_file", path=BIG, content="…")), read(4), DONE]
    with pytest.raises(RunFailedError):
        await run.loop(Script(*script), max_turns=2).run()
    run.is_retried()
    loop = run.loop(model := Script(*script))
    assert run.files == {"f.txt": "a\n"}
    assert loop.has_warning
    await loop.run()
    assert [PUT_BACK] in [texts(message) for message in model.asked_with[-1]]


@pytest.mark.parametrize("lost_after", range(1, 8))
async def test_wherever_it_breaks_off_the_model_is_warned_just_where_something_is_gone(run: StoredRun, lost_after: int):
    both = reply(edit(2, "a", "b"), call(3, "write_file", path=BIG, content="…"))
    script = [read(1), both, read(4), deletes_big(5), DONE]
    run.lost_after = lost_after
    with pytest.raises(LeaseLostError):
        await run.loop(Script(*script)).run()
    was_told = any(b"Replaced 1 place" in message.body for message in run.messages)
    has_warning = run.loop(Script(*script)).has_warning
    assert has_warning is (was_told and run.files == {"f.txt": "a\n"})


async def test_who_has_heard_that_it_is_gone_does_not_hear_it_again(run: StoredRun):
    script = [read(1), makes_big(2), *(read(number) for number in range(3, 9))]
    with pytest.raises(RunFailedError):
        await run.loop(Script(*script), max_turns=2).run()
    loop = run.loop(Script(*script), max_turns=4)
    assert loop.has_warning
    with pytest.raises(RunFailedError):
        await loop.run()
    assert not run.loop(Script()).has_warning


async def test_an_end_that_is_stored_without_what_was_made_is_not_delivered(run: StoredRun):
    """As where a run was out of time at its end, and its agent was lost before it could say so."""
    loop = run.loop(Script(reply(call(1, "write_file", path=BIG, content="…"), done(2))))
    await loop.run()
    await loop.conclude()
    loop = run.loop(Script())
    ended = await loop.run()
    assert isinstance(ended, Finished)
    job: Any = SimpleNamespace(hold=None, options=SimpleNamespace(test_command=None))
    with pytest.raises(RunFailedError, match="too large to be stored"):
        await Delivery(job, job, job, run.tree).deliver(ended, loop)
