"""A loop that talks with its user: when it waits, what it hears, and how what is said ends up in the transcript."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.agent.answering import NOT_ALONE
from services.agent.endings import Parked, RunFailedError
from services.contracts.words import EventKind
from services.jobs.errors import LeaseLostError
from tests.unit.agent.scripted import Script, StoredRun, call, read, reply, said
from tests.unit.agent.talking import ANSWER, MORE, Meanwhile, asks, assert_valid, last_message, saying


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return StoredRun(tmp_path)


async def test_a_turn_that_ends_in_text_is_the_users(run: StoredRun):
    assert await run.talk(Script(read(1), ANSWER)).run() == Parked("It says a.")
    assert run.roles[-1] == "assistant"
    assert_valid(run)


async def test_a_question_alone_is_the_users_turn(run: StoredRun):
    assert await run.talk(Script(reply(said("Hm."), asks(1)))).run() == Parked("Which file?")
    assert "ran toolu_1" not in run.record


async def test_a_message_goes_on_where_the_run_was_parked(run: StoredRun):
    model = Script(read(1), ANSWER, MORE)
    await run.talk(model).run()
    run.says("And now?")
    assert await run.talk(model).run() == Parked("It still does.")
    assert model.asked_with[-1][: len(model.asked_with[-2])] == model.asked_with[-2]
    assert last_message(run, back=2) == [said("And now?")]
    assert run.read_through == 1
    assert [told["turn"] for told in run.told(EventKind.TURN_STARTED)] == [2, 3]
    assert_valid(run)


async def test_an_answer_is_the_questions_result(run: StoredRun):
    model = Script(reply(asks(1)), ANSWER)
    await run.talk(model).run()
    run.says("f.txt")
    run.says("please")
    assert await run.talk(model).run() == Parked("It says a.")
    expected = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "f.txt\n\nplease"}
    assert last_message(run, back=2) == [expected]
    assert_valid(run)


async def test_two_messages_at_once_are_heard_together_in_order(run: StoredRun):
    model = Script(ANSWER, MORE)
    await run.talk(model).run()
    run.says("One.")
    run.says("Two.")
    await run.talk(model).run()
    assert last_message(run, back=2) == [said("One."), said("Two.")]
    assert (run.read_through, model.asked) == (2, 2)


@pytest.mark.parametrize("others", [[call(2, "read_file", path="f.txt")], [asks(2, "And why?")]])
async def test_a_question_beside_other_calls_is_not_asked(run: StoredRun, others: list[dict[str, Any]]):
    """It would not be waited for, and results cannot wait for an answer: the model is told to ask alone."""
    model = Script(reply(asks(1), *others), reply(asks(3)))
    assert await run.talk(model).run() == Parked("Which file?")
    result = last_message(run, back=2)[0]
    assert (result["content"], result["is_error"]) == (NOT_ALONE, True)
    assert_valid(run)


@pytest.mark.parametrize("question", [{}, {"question": " "}, {"question": 3}, {"text": "Which?"}])
async def test_a_question_that_asks_nothing_is_not_waited_for(run: StoredRun, question: dict[str, Any]):
    model = Script(reply(call(1, "ask_user", **question)), reply(asks(2)))
    assert await run.talk(model).run() == Parked("Which file?")
    assert last_message(run, back=2)[0]["is_error"]


async def test_a_message_while_tools_are_called_comes_with_their_results(run: StoredRun):
    model = Meanwhile(read(1), ANSWER, moments={1: saying(lambda: run.says("Also g.txt."))})
    await run.talk(model).run()
    result, words = last_message(run, back=2)
    assert (result["type"], words) == ("tool_result", said("Also g.txt."))
    assert_valid(run)


async def test_a_message_while_the_model_says_its_last_is_not_slept_over(run: StoredRun):
    model = Meanwhile(ANSWER, MORE, moments={1: saying(lambda: run.says("And now?"))})
    assert await run.talk(model).run() == Parked("It still does.")


async def test_a_message_between_the_last_word_and_the_parking_is_heard_when_it_is_run_again(run: StoredRun):
    model = Script(ANSWER, MORE)
    loop = run.talk(model)
    assert await loop.run() == Parked("It says a.")
    run.says("And now?")
    assert await loop.run() == Parked("It still does.")
    assert_valid(run)


async def test_what_the_user_is_asked_is_stored_before_the_run_waits(run: StoredRun):
    run.lost_before = 1
    with pytest.raises(LeaseLostError):
        await run.talk(Script(reply(asks(1)))).run()


STORY = (
    read(1),
    reply(said("Hm."), asks(2)),
    reply(asks(3), call(4, "read_file", path="f.txt")),
    ANSWER,
    read(5),
    MORE,
)
"""With its user saying "f.txt" to the question and "And now?" to the answer."""
SAVES = 11


async def tell(run: StoredRun) -> None:
    """Go on with the story, each time it waits in another attempt, until its user has no more to say."""
    words = {2: "f.txt", 4: "And now?"}
    model = Script(*STORY)
    while await run.talk(model).run() != Parked("It still does."):
        spoken = run.roles.count("assistant")
        if len(run.inbox) < sum(place <= spoken for place in words):
            run.says(words[spoken])


@pytest.mark.parametrize("point", range(1, SAVES + 1))
@pytest.mark.parametrize("when", ["lost_before", "lost_after"])
async def test_lost_at_any_checkpoint_it_ends_with_the_same_bytes(tmp_path: Path, when: str, point: int):
    whole, run = StoredRun(tmp_path / "whole"), StoredRun(tmp_path / "run")
    await tell(whole)
    assert whole.saves == SAVES
    setattr(run, when, point)
    with pytest.raises(LeaseLostError):
        await tell(run)
    await tell(run)
    assert (run.bodies, run.turns, run.read_through) == (whole.bodies, whole.turns, 2)
    assert_valid(run)


async def test_replies_are_cut_off_so_often_in_answer_to_one_message(run: StoredRun):
    cut = reply(said("A long answer"), stop="max_tokens")
    model = Script(cut, cut, ANSWER, cut, cut, ANSWER, cut, cut, cut)
    for number in range(2):
        assert await run.talk(model).run() == Parked("It says a.")
        run.says(f"Question {number}")
    with pytest.raises(RunFailedError, match="cut off at max_tokens 3 times"):
        await run.talk(model).run()


async def test_the_same_answer_to_the_same_question_is_no_repetition(run: StoredRun):
    model = Script(*[reply(asks(number, "Another one?")) for number in range(6)], ANSWER)
    for _ in range(6):
        assert await run.talk(model).run() == Parked("Another one?")
        run.says("Yes.")
    assert await run.talk(model).run() == Parked("It says a.")
