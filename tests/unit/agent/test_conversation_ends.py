"""How a conversation ends: by the model, by its user, and not while something that was said is unheard."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.agent.answering import MORE_WAS_SAID
from services.agent.endings import Finished, Parked
from services.contracts.words import EventKind
from tests.unit.agent.scripted import Script, StoredRun, call, done, read, reply, said
from tests.unit.agent.talking import ANSWER, MORE, Meanwhile, asks, assert_valid, last_message, saying

READS_AND_ENDS = reply(call(1, "read_file", path="f.txt"), done(2, "It says a."))


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return StoredRun(tmp_path)


async def test_the_model_ends_it(run: StoredRun):
    assert await run.talk(Script(READS_AND_ENDS)).run() == Finished("It says a.")


async def test_the_model_does_not_end_it_while_something_is_unheard(run: StoredRun):
    model = Meanwhile(READS_AND_ENDS, MORE, moments={1: saying(lambda: run.says("And now?"))})
    assert await run.talk(model).run() == Parked("It still does.")
    was_read, ending, words = last_message(run, back=2)
    assert "is_error" not in was_read
    assert (ending["content"], words) == (MORE_WAS_SAID, said("And now?"))
    assert_valid(run)


async def test_an_end_that_does_not_stand_is_gone_on_from_without_doing_anything_again(run: StoredRun):
    """The message came after the loop had looked: whoever wanted to complete the run runs the loop again."""
    loop = run.talk(Script(READS_AND_ENDS, MORE, reply(done(3))))
    assert await loop.run() == Finished("It says a.")
    run.says("And now?")
    assert await loop.run() == Parked("It still does.")
    assert run.record.count("ran toolu_1") == 1
    assert last_message(run, back=2)[2] == said("And now?")
    assert_valid(run)
    run.says("Thanks.")
    assert await loop.run() == Finished("Changed.")


async def test_its_user_ends_it_at_the_end_of_a_turn_without_calls(run: StoredRun):
    model = Meanwhile(ANSWER, moments={1: saying(run.completes)})
    assert await run.talk(model).run() == Finished("It says a.", read_through=1)


async def test_its_user_ends_it_at_the_end_of_a_turn_with_calls_whose_results_are_kept(run: StoredRun):
    model = Meanwhile(read(1), moments={1: saying(run.completes)})
    assert await run.talk(model).run() == Finished("Reading.", read_through=1)
    assert last_message(run)[0]["content"].startswith("1")
    assert [event.kind for event in run.events][-1] is EventKind.TOOL_ENDED
    assert model.asked == 1
    assert_valid(run)


async def test_its_user_and_the_model_end_it_at_once(run: StoredRun):
    model = Meanwhile(READS_AND_ENDS, moments={1: saying(run.completes)})
    assert await run.talk(model).run() == Finished("It says a.", read_through=1)


async def test_the_last_words_may_be_a_question(run: StoredRun):
    model = Meanwhile(reply(asks(1, "Why?")), moments={1: saying(run.completes)})
    assert await run.talk(model).run() == Finished("Why?", read_through=1)


@pytest.mark.parametrize("last", [ANSWER, read(1), reply(asks(1))], ids=["text", "calls", "question"])
async def test_what_was_said_before_the_end_is_kept_though_nobody_answers_it(run: StoredRun, last: object):
    def leaves() -> None:
        run.says("Thanks.")
        run.completes()

    model = Meanwhile(last, moments={1: saying(leaves)})  # type: ignore[arg-type]
    ended = await run.talk(model).run()
    assert isinstance(ended, Finished)
    assert (ended.read_through, run.read_through, model.asked) == (2, 2, 1)
    assert "Thanks." in str(last_message(run)[-1])
    assert_valid(run)


async def test_who_speaks_again_after_the_end_is_answered(run: StoredRun):
    def comes_back() -> None:
        run.completes()
        run.says("One more thing.")

    model = Meanwhile(ANSWER, MORE, moments={1: saying(comes_back)})
    assert await run.talk(model).run() == Parked("It still does.")
    assert run.read_through == 2


async def test_who_speaks_while_the_end_is_recorded_is_answered(run: StoredRun):
    model = Meanwhile(ANSWER, MORE, moments={1: saying(run.completes)})
    loop = run.talk(model)
    assert await loop.run() == Finished("It says a.", read_through=1)
    run.says("One more thing.")
    assert await loop.run() == Parked("It still does.")
    assert last_message(run, back=2) == [said("One more thing.")]
    assert_valid(run)
