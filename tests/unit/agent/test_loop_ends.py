"""What is stored of the turn that a run ends with, and what becomes of it when the run goes on: sent back by its tests,
taken up by another attempt, or by another run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.agent.answering import NOTED
from services.agent.endings import Finished, Parked, RunFailedError
from services.agent.loop import Loop
from services.agent.model import Reply, Watch
from services.agent.prompts import prompt
from services.agent.tools.calls import Outcome, ToolSpec
from services.agent.tools.toolbox import _BROKEN_OFF
from services.agent.transcript import Transcript
from services.contracts.words import EventKind, ExitReason
from services.jobs.errors import LeaseLostError
from tests.unit.agent.scripted import Script, StoredRun, call, done, edit, read, reply, said
from tests.unit.agent.talking import ANSWER, Meanwhile, asks, assert_valid, last_message

FAILED = "The tests failed."
MIXED = reply(edit(2, "a", "b"), call(3, "read_file", path="f.txt"), done(4))
DONE = reply(done(99, "Nothing more."))
ENDED = reply(said("I think that is all."), stop="end_turn")


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return StoredRun(tmp_path)


async def attempt(run: StoredRun, model: Script, **options: Any) -> Finished | Parked:
    """A new attempt of a run that may go on from another one, as `Attempt` drives its loop."""
    loop = run.loop(model, **options)
    goes_on = 0 < run.copied == len(run.messages) and loop.owes_an_answer
    return await (loop.go_on(prompt("go_on")) if goes_on else loop.run())


class Command:
    """Writes one more line into a file that the tools do not know of."""

    spec = ToolSpec("run_command", "Runs.", {"type": "object"}, writes=True, outside=True)

    def __init__(self, run: StoredRun) -> None:
        self._run = run

    def subject(self, arguments: Any) -> str:
        return ""

    async def run(self, arguments: Any) -> Outcome:
        with (self._run.tree / "made.txt").open("a") as file:
            file.write("made\n")
        return Outcome("Exit code 0 after 0.1 s.\nmade")


async def test_a_model_whose_tests_fail_hears_what_all_of_its_last_calls_came_to(run: StoredRun):
    model = Script(read(1), MIXED, DONE)
    loop = run.loop(model)
    assert await loop.run() == Finished("Changed.")
    assert await loop.go_on(FAILED) == Finished("Nothing more.")
    edited, was_read, ending, words = model.asked_with[2][-1]["content"]
    assert "f.txt" in edited["content"]
    assert was_read["content"].startswith("1\tb")
    assert (ending["content"], words) == (NOTED, said(FAILED))
    assert run.record.count("ran toolu_2") == 1
    assert_valid(run)


async def test_the_tree_is_stored_with_what_is_said_of_it(run: StoredRun):
    loop = run.loop(Script(read(1), MIXED, DONE))
    await loop.run()
    await loop.go_on(FAILED)
    run.loop(Script())  # puts the tree back to what is stored
    assert run.files == {"f.txt": "b\n"}


async def test_what_is_done_beside_the_end_is_told_before_the_work_is_looked_at(run: StoredRun):
    await run.loop(Script(read(1), MIXED)).run()
    told = run.events[-4:]
    assert [event.kind for event in told] == [*[EventKind.TOOL_ENDED] * 3, EventKind.FILE_CHANGED]
    assert [event.data["toolUseId"] for event in told[:3]] == ["toolu_2", "toolu_3", "toolu_4"]


async def test_it_is_told_once_though_the_run_goes_on(run: StoredRun):
    loop = run.loop(Script(read(1), MIXED, DONE))
    await loop.run()
    await loop.go_on(FAILED)
    ended = [event["toolUseId"] for event in run.told(EventKind.TOOL_ENDED)]
    assert ended == ["toolu_1", "toolu_2", "toolu_3", "toolu_4"]
    assert [event["turn"] for event in run.told(EventKind.TURN_STARTED)] == [2, 3]


async def test_an_end_that_stands_is_stored_with_what_the_model_is_told_if_the_run_goes_on(run: StoredRun):
    loop = run.loop(Script(reply(call(1, "run_command"), done(2))), extra=[Command(run)])
    await loop.run()
    assert run.roles[-1] == "assistant", "it is not known yet whether this was the end"
    await loop.conclude()
    await loop.conclude()
    ran, ending, words = last_message(run)
    assert ran["content"].endswith("made")
    assert (ending["content"], words) == (NOTED, said(prompt("go_on")))
    assert EventKind.TURN_STARTED not in [event.kind for event in run.events]
    run.loop(Script())
    assert run.files["made.txt"] == "made\n"


async def test_an_end_alone_has_nothing_to_store(run: StoredRun):
    loop = run.loop(Script(DONE))
    await loop.run()
    saves = run.saves
    await loop.conclude()
    assert run.saves == saves


@pytest.mark.parametrize("status", ["done", "blocked"])
async def test_an_end_that_was_stored_is_the_next_attempts_too(run: StoredRun, status: str):
    """Its agent died before it was told how the run ended."""
    loop = run.loop(Script(reply(call(1, "run_command"), done(2, "So far.", status))), extra=[Command(run)])
    await loop.run()
    await loop.conclude()
    model, again = Script(), run.loop(Script(), extra=[Command(run)])
    assert await again.run() == Finished("So far.", blocked=status == "blocked")
    assert not again.owes_an_answer
    assert (model.asked, run.files["made.txt"]) == (0, "made\n")


async def test_a_run_that_is_stuck_keeps_its_last_turn_and_stays_stuck(run: StoredRun):
    model = Script(*[reply(call(number, "run_command")) for number in range(10)])
    with pytest.raises(RunFailedError, match="same call 4 times"):
        await run.loop(model, extra=[Command(run)]).run()
    with pytest.raises(RunFailedError, match="same call 4 times") as failed:
        await run.loop(model, extra=[Command(run)]).run()  # its agent died before it was told
    assert (failed.value.reason, model.asked) == (ExitReason.STUCK, 4)
    assert run.files["made.txt"] == "made\n" * 4


# Four turns, of which three say that they are the last; its tests fail twice.
STORY = (
    read(1),
    MIXED,
    reply(done(5)),
    reply(call(6, "write_file", path="g.txt", content="g\n"), call(7, "list_files"), done(8, "At last.")),
)
SAVES = 9


async def gated(run: StoredRun, model: Script) -> Finished:
    """An attempt, as `Delivery` ends it."""
    loop: Loop = run.loop(model)
    ended = await loop.run()
    while loop.times_begun(FAILED) < 2:
        ended = await loop.go_on(f"{FAILED} For the {loop.times_begun(FAILED) + 1}. time.")
    await loop.conclude()
    assert isinstance(ended, Finished)
    return ended


async def test_the_story_has_as_many_checkpoints_as_are_tried(run: StoredRun):
    assert await gated(run, Script(*STORY)) == Finished("At last.")
    assert (run.saves, run.turns) == (SAVES, 4)
    assert_valid(run)


@pytest.mark.parametrize("point", range(1, SAVES + 1))
@pytest.mark.parametrize("when", ["lost_before", "lost_after"])
async def test_lost_at_any_checkpoint_of_its_ends_it_ends_the_same(tmp_path: Path, when: str, point: int):
    whole, run = StoredRun(tmp_path / "whole"), StoredRun(tmp_path / "run")
    await gated(whole, Script(*STORY))
    setattr(run, when, point)
    with pytest.raises(LeaseLostError):
        await gated(run, Script(*STORY))
    assert run.bodies == whole.bodies[: len(run.bodies)]
    assert await gated(run, Script(*STORY)) == Finished("At last.")
    assert (run.bodies, run.files, run.turns) == (whole.bodies, whole.files, whole.turns)


async def is_blocked(run: StoredRun) -> None:
    loop = run.loop(Script(read(1), reply(edit(2, "a", "b"), done(3, "No key.", "blocked"))))
    assert (await loop.run()) == Finished("No key.", blocked=True)
    await loop.conclude()


async def is_blocked_alone(run: StoredRun) -> None:
    await run.loop(Script(read(1), reply(edit(2, "a", "b")), reply(done(3, "?", "blocked")))).run()


async def is_blocked_and_lost_its_results(run: StoredRun) -> None:
    """As before there were any to be stored."""
    await run.loop(Script(read(1), reply(edit(2, "a", "b"), done(3, "No key.", "blocked")))).run()


async def is_stuck(run: StoredRun) -> None:
    again = [read(number) for number in range(3, 7)]
    with pytest.raises(RunFailedError, match="same call"):
        await run.loop(Script(read(1), reply(edit(2, "a", "b")), *again)).run()


async def is_malformed(run: StoredRun) -> None:
    odd = [reply(call(number, "no_such_tool")) for number in range(3, 6)]
    with pytest.raises(RunFailedError, match="malformed"):
        await run.loop(Script(read(1), reply(edit(2, "a", "b")), *odd)).run()


async def ended_in_text(run: StoredRun) -> None:
    await run.loop(Script(read(1), reply(edit(2, "a", "b")), ENDED, ENDED)).run()


async def is_out_of_turns_while_its_tests_go_back(run: StoredRun) -> None:
    loop = run.loop(Script(read(1), MIXED), max_turns=2)
    await loop.run()
    with pytest.raises(RunFailedError, match="not finished after 2 turns"):
        await loop.go_on(FAILED)


async def is_cut_off(run: StoredRun) -> None:
    cut = reply(said("A long"), stop="max_tokens")
    with pytest.raises(RunFailedError, match="cut off"):
        await run.loop(Script(read(1), reply(edit(2, "a", "b")), cut, cut, cut)).run()


@pytest.mark.parametrize(
    "end",
    [
        is_blocked,
        is_blocked_alone,
        is_blocked_and_lost_its_results,
        is_stuck,
        is_malformed,
        ended_in_text,
        is_out_of_turns_while_its_tests_go_back,
        is_cut_off,
    ],
)
@pytest.mark.parametrize("times_lost", [0, 1], ids=["", "interrupted before it asked"])
async def test_a_run_that_goes_on_from_another_asks_its_model_and_has_all_that_was_done(
    run: StoredRun, end: Callable[[StoredRun], Any], times_lost: int
):
    await end(run)
    run.is_retried()
    prefix = run.bodies
    if times_lost:
        run.lost_before = run.saves + 1
        with pytest.raises(LeaseLostError):
            await attempt(run, Asked(ENDED, ENDED))
    model = Asked(ENDED, ENDED)
    assert await attempt(run, model) == Finished("I think that is all.")
    assert model.asked == 2, "and is told once more to say that it is done"
    assert run.files == {"f.txt": "b\n"}
    assert run.bodies[: len(prefix)] == prefix
    assert_valid(run)


class Asked(Script):
    """Answers in the order in which it is asked, whatever the transcript."""

    async def __call__(self, messages: Sequence[bytes], watch: Watch) -> Reply:
        self.asked_with.append([orjson.loads(message) for message in messages])
        return self._replies[self.asked - 1]


async def test_nothing_of_another_run_counts_against_this_one(run: StoredRun):
    await is_stuck(run)
    run.is_retried()
    with pytest.raises(RunFailedError, match="same call 4 times"):
        await attempt(run, Asked(*[read(number) for number in range(10, 20)]))
    assert run.turns == 4


async def test_a_command_after_going_on_is_made(run: StoredRun):
    """Whoever goes on from a call that was broken off is told so; no later call was."""
    broken = reply(call(1, "run_command"))
    run.messages.append(Transcript(run.messages).append("assistant", broken.content))
    run.is_retried()
    ran = reply(call(2, "run_command"))
    assert await attempt(run, Asked(ran, DONE), extra=[Command(run)]) == Finished("Nothing more.")
    (result,) = last_message(run, back=2)
    assert result["content"] == "Exit code 0 after 0.1 s.\nmade"
    broken_off, words = last_message(run, back=4)
    assert (broken_off["content"], words) == (_BROKEN_OFF, said(prompt("go_on")))


@pytest.mark.parametrize("last", [ANSWER, reply(asks(1))], ids=["answer", "question"])
async def test_a_conversation_that_goes_on_from_another_waits_where_it_is_its_users_turn(run: StoredRun, last: Reply):
    await run.talk(Script(last)).run()
    run.is_retried()
    assert not run.talk(Script()).owes_an_answer


async def test_a_conversation_that_its_model_had_ended_goes_on_with_its_model(run: StoredRun):
    await run.talk(Script(reply(call(1, "read_file", path="f.txt"), done(2)))).run()
    run.is_retried()
    loop = run.talk(Script(ANSWER, ANSWER))
    assert loop.owes_an_answer
    assert await loop.go_on(prompt("go_on")) == Parked("It says a.")
    assert last_message(run, back=2)[-1] == said(prompt("go_on"))
    assert_valid(run)


async def test_what_is_unheard_goes_with_the_results_of_an_end_that_does_not_stand(run: StoredRun):
    """They are told once, and nothing of them is stored twice."""
    both = reply(call(1, "read_file", path="f.txt"), done(2))
    loop = run.talk(Meanwhile(both, ANSWER, moments={}))
    assert isinstance(await loop.run(), Finished)
    run.says("Wait.")
    assert await loop.run() == Parked("It says a.")
    assert [event["toolUseId"] for event in run.told(EventKind.TOOL_ENDED)] == ["toolu_1", "toolu_2"]
    assert_valid(run)
