"""The tool loop with a scripted model and real tools: what it stores and tells, and every way it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.agent import saving
from services.agent.endings import Finished, Limits, RunFailedError
from services.agent.model import Fragment, Reply, Watch
from services.agent.prompts import prompt
from services.agent.tools.calls import Outcome, ToolSpec
from services.agent.transcript import Transcript
from services.contracts.words import EventKind, ExitReason
from services.jobs.models import Checkpoint, Standing
from tests.unit.agent.scripted import Script, StoredRun, call, done, edit, read, reply, said, thought

DONE = reply(done(99))
LIMITS = Limits(max_turns=30)
ENDED = reply(said("I think that is all."), stop="end_turn")
DELETE = call(1, "delete_file", path="f.txt")


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return StoredRun(tmp_path)


async def failure(run: StoredRun, *replies: Reply, **options: Any) -> RunFailedError:
    with pytest.raises(RunFailedError) as failed:
        await run.loop(Script(*replies), **options).run()
    return failed.value


async def test_reads_edits_and_is_done(run: StoredRun):
    finished = await run.loop(Script(read(1), reply(edit(2, "a", "b")), DONE)).run()
    assert finished == Finished("Changed.")
    assert run.files == {"f.txt": "b\n"}
    assert run.roles == ["user", "assistant", "user", "assistant", "user", "assistant"]
    assert [message.number for message in run.messages] == [1, 2, 3, 4, 5, 6]
    assert run.turns == 3


async def test_a_write_is_stored_before_it_is_made_and_its_result_before_what_follows_from_it(run: StoredRun):
    """Results are stored beside the next request, and a reply beside tools that only read."""
    fragments = [Fragment("text", 0, "…")]
    await run.loop(Script(read(1), reply(edit(2, "a", "b")), DONE, fragments=fragments)).run()
    place = run.record.index
    assert place("stored assistant 4") < place("ran toolu_2"), "a write is made once its call is stored"
    assert place("delta of turn 1: …") < place("stored assistant 2")
    assert place("stored assistant 2") < place("stored user 3") < place("stored assistant 4")
    assert place("stored assistant 4") < place("stored user 5") < place("stored assistant 6")
    assert place("ran toolu_1") < place("delta of turn 2: …") < place("ran toolu_2") < place("delta of turn 3: …")


async def test_what_is_told_of_a_run(run: StoredRun):
    await run.loop(Script(read(1), reply(edit(2, "a", "b")), DONE)).run()
    assert [event.kind.value for event in run.events] == [
        *("turn.ended", "usage", "tool.started", "tool.ended", "turn.started"),
        *("turn.ended", "usage", "tool.started", "tool.ended", "file.changed", "turn.started"),
        *("turn.ended", "usage", "tool.started"),
    ]
    assert [event["turn"] for event in run.told(EventKind.TURN_ENDED)] == [1, 2, 3]
    assert [event["turn"] for event in run.told(EventKind.TURN_STARTED)] == [2, 3]
    assert run.told(EventKind.FILE_CHANGED) == [{"path": "f.txt", "change": "modified"}]
    assert [event["subject"] for event in run.told(EventKind.TOOL_STARTED)] == ["f.txt", "f.txt", "done"]


async def test_all_results_of_a_turn_are_one_message_in_call_order(run: StoredRun):
    both = reply(call(1, "read_file", path="f.txt"), call(2, "read_file", path="none.txt"), call(3, "list_files"))
    model = Script(both, DONE)
    await run.loop(model).run()
    (results,) = (message["content"] for message in model.asked_with[1][2:])
    assert [block["tool_use_id"] for block in results] == ["toolu_1", "toolu_2", "toolu_3"]
    assert [block.get("is_error", False) for block in results] == [False, True, False]


async def test_edits_beside_the_completion_are_made(run: StoredRun):
    last = reply(edit(2, "a", "b"), done(3))
    assert await run.loop(Script(read(1), last)).run() == Finished("Changed.")
    assert run.files == {"f.txt": "b\n"}


async def test_a_completion_beside_a_failed_call_is_not_taken(run: StoredRun):
    """The model called it done before it saw that its edit had failed."""
    hasty = reply(edit(2, "missing", "b"), done(3))
    model = Script(read(1), hasty, reply(edit(4, "a", "b")), DONE)
    assert await run.loop(model).run() == Finished("Changed.")
    assert run.files == {"f.txt": "b\n"}
    refused = model.asked_with[2][-1]["content"]
    assert [block["is_error"] for block in refused] == [True, True]
    assert "another call of this turn failed" in refused[1]["content"]


async def test_a_blocked_run_says_so_whatever_else_failed(run: StoredRun):
    blocked = reply(call(1, "read_file", path="none.txt"), done(2, "No such file.", "blocked"))
    assert await run.loop(Script(blocked)).run() == Finished("No such file.", blocked=True)


async def test_who_ends_a_turn_without_a_word_is_asked_once(run: StoredRun):
    model = Script(ENDED, ENDED)
    assert await run.loop(model).run() == Finished("I think that is all.")
    assert model.asked == 2
    assert Transcript(run.messages).times_said(prompt("nudge")) == 1


async def test_who_is_nudged_may_go_on(run: StoredRun):
    assert await run.loop(Script(ENDED, read(1), reply(edit(2, "a", "b")), DONE)).run() == Finished("Changed.")
    assert run.files == {"f.txt": "b\n"}


async def test_a_plan_in_text_is_the_result(run: StoredRun):
    model = Script(reply(said("Forty-two."), stop="end_turn"))
    assert await run.loop(model, ends_on_text=True).run() == Finished("Forty-two.")
    assert model.asked == 1


async def test_the_turns_of_earlier_attempts_count(run: StoredRun):
    run.turns = 29
    failed = await failure(run, read(1), DONE)
    assert failed.reason is ExitReason.MAX_TURNS
    assert "not finished after 30 turns" in str(failed)
    assert run.turns == 30


async def test_calls_of_a_cut_off_reply_are_not_run(run: StoredRun):
    cut = reply(thought("unsigned"), said("Deleting."), DELETE, stop="max_tokens")
    model = Script(cut, DONE)
    assert await run.loop(model).run() == Finished("Changed.")
    assert run.files == {"f.txt": "a\n"}
    kept, asked = model.asked_with[1][1:]
    assert kept["content"] == [said("Deleting.")], "thinking cut short has no signature, a call no end"
    assert asked["content"] == [said(prompt("cut_off"))]


async def test_replies_cut_off_again_and_again_are_stuck(run: StoredRun):
    cut = reply(DELETE, stop="max_tokens")
    failed = await failure(run, *[cut] * (LIMITS.max_cut_offs + 1))
    assert failed.reason is ExitReason.STUCK
    assert run.files == {"f.txt": "a\n"}
    assert run.turns == LIMITS.max_cut_offs + 1, "the last one was paid for, too"


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("refusal", ExitReason.MODEL_REFUSED),
        ("model_context_window_exceeded", ExitReason.CONTEXT_EXHAUSTED),
    ],
)
async def test_calls_of_a_reply_that_ends_the_run_are_not_run(run: StoredRun, stop: str, reason: ExitReason):
    failed = await failure(run, reply(said("I will not."), DELETE, stop=stop))
    assert failed.reason is reason
    assert not failed.retryable
    assert run.files == {"f.txt": "a\n"}
    assert run.roles == ["user"]
    assert run.turns == 1, "it was paid for all the same"


async def test_a_refusal_is_told_in_the_model_s_words(run: StoredRun):
    assert str(await failure(run, reply(said("I will not."), stop="refusal"))) == "I will not."
    assert "refused" in str(await failure(run, reply(stop="refusal")))


@pytest.mark.parametrize("ends_on_text", [True, False])
async def test_a_paused_turn_is_gone_on_with(run: StoredRun, ends_on_text: bool):
    paused = reply(said("Half an"), stop="pause_turn")
    model = Script(paused, DONE)
    assert await run.loop(model, ends_on_text=ends_on_text).run() == Finished("Changed.")
    assert model.asked_with[1][-1]["content"] == [said(prompt("paused"))]
    assert Transcript(run.messages).times_said(prompt("nudge")) == 0


@pytest.mark.parametrize("blocks", [[], [thought("Hm.")]])
async def test_no_message_is_empty_or_ends_with_thinking(run: StoredRun, blocks: list[dict[str, Any]]):
    model = Script(reply(*blocks, stop="end_turn"), DONE)
    await run.loop(model).run()
    assert model.asked_with[1][1]["content"] == [*blocks, said("(no reply)")]


async def test_only_malformed_calls_are_given_up_on(run: StoredRun):
    failed = await failure(
        run, *[reply(call(number, "read_file", road=number)) for number in range(LIMITS.max_malformed_turns)]
    )
    assert failed.reason is ExitReason.STUCK
    assert "malformed" in str(failed)


async def test_one_good_call_in_between_is_patience_again(run: StoredRun):
    odd = [reply(call(number, "no_such_tool", road="f.txt")) for number in range(2 * LIMITS.max_malformed_turns)]
    model = Script(*odd[: LIMITS.max_malformed_turns - 1], read(90), *odd[LIMITS.max_malformed_turns : -1], DONE)
    assert await run.loop(model).run() == Finished("Changed.")


async def test_the_same_call_again_and_again_is_nudged_then_stopped(run: StoredRun):
    model = Script(*[read(number) for number in range(LIMITS.max_identical_calls)])
    with pytest.raises(RunFailedError, match="same call") as failed:
        await run.loop(model).run()
    assert failed.value.reason is ExitReason.STUCK
    nudges = [
        said(prompt("repeating")) in message["content"] for message in model.asked_with[-1] if _is_results(message)
    ]
    assert nudges == [number == LIMITS.max_identical_calls - 1 for number in range(1, LIMITS.max_identical_calls)]


async def test_how_much_patience_there_is_the_job_says(run: StoredRun):
    failed = await failure(run, *[read(number) for number in range(9)], max_identical_calls=6)
    assert (failed.reason, run.turns, run.bodies.count(run.bodies[0])) == (ExitReason.STUCK, 6, 1)
    assert [number for number, body in enumerate(run.bodies) if prompt("repeating").encode() in body] == [10, 12]


async def test_so_it_does_for_malformed_calls(run: StoredRun):
    odd = [reply(call(number, "read_file", road=number)) for number in range(9)]
    failed = await failure(run, *odd, max_malformed_turns=1)
    assert (failed.reason, run.turns) == (ExitReason.STUCK, 1)
    assert run.roles[-1] == "user", "what it did wrong is stored, for whoever goes on"


@pytest.mark.parametrize("most", [0, 3])
async def test_and_for_replies_that_are_cut_off(run: StoredRun, most: int):
    failed = await failure(run, *[reply(DELETE, stop="max_tokens")] * 9, max_cut_offs=most)
    assert (failed.reason, run.turns) == (ExitReason.STUCK, most + 1)


class Timed:
    """A command that does the same each time, and takes longer each time."""

    spec = ToolSpec("run_command", "Runs.", {"type": "object"}, writes=True, outside=True)

    def __init__(self) -> None:
        self.times_run = 0

    def subject(self, arguments: Any) -> str:
        return ""

    async def run(self, arguments: Any) -> Outcome:
        self.times_run += 1
        times, took = self.times_run, 0.4 * self.times_run
        return Outcome(
            f"Exit code 1 after {took:.1f} s.\n{9 + times}:07:31 <T object at 0x7f00d{times}00>: FAILED\n"
            f"Ran 1 test in {took:.3f}s\n[Read it with read_file, path @outputs/{times}.txt.]"
        )


async def test_how_long_the_same_took_makes_no_difference(run: StoredRun):
    failed = await failure(run, *[reply(call(n, "run_command")) for n in range(9)], extra=[Timed()])
    assert (failed.reason, run.turns) == (ExitReason.STUCK, LIMITS.max_identical_calls)


async def test_the_same_call_with_another_result_is_progress(run: StoredRun):
    swaps = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f")]
    turns = [turn for old, new in swaps for turn in (read(1), reply(edit(2, old, new)))]
    assert await run.loop(Script(*turns, DONE)).run() == Finished("Changed.")
    assert run.files == {"f.txt": "f\n"}


def _is_results(message: dict[str, Any]) -> bool:
    return any(block["type"] == "tool_result" for block in message["content"])


async def test_what_others_count_on_is_stored_before_the_next_request(run: StoredRun, monkeypatch: pytest.MonkeyPatch):
    stored = run._save

    async def stored_a_moment_later(checkpoint: Checkpoint) -> Standing:
        for _ in range(10):
            await asyncio.sleep(0)
        return await stored(checkpoint)

    monkeypatch.setattr(run, "_save", stored_a_moment_later)

    class Shared(Script):
        shares_budget = True

        async def __call__(self, messages: Sequence[bytes], watch: Watch) -> Reply:
            assert run.turns == self.asked, "else its budget is asked without what the run has used"
            return await super().__call__(messages, watch)

    assert await run.loop(Shared(read(1), read(2), reply(edit(3, "a", "b")), DONE)).run() == Finished("Changed.")


@pytest.mark.parametrize("turns", [1, 4], ids=["too many turns", "the same call"])
async def test_what_was_paid_is_stored_before_the_run_fails(
    run: StoredRun, monkeypatch: pytest.MonkeyPatch, turns: int
):
    monkeypatch.setattr(saving, "_SETTLE_SECONDS", 0)
    await failure(run, *[read(number) for number in range(LIMITS.max_identical_calls)], max_turns=turns)
    assert run.turns == turns


class Command:
    """May have written anywhere, and may do so still."""

    spec = ToolSpec("run_command", "Runs.", {"type": "object"}, writes=True, outside=True)

    def subject(self, arguments: Any) -> str:
        return ""

    async def run(self, arguments: Any) -> Outcome:
        return Outcome("Exit code 0")


async def test_from_the_first_command_on_everything_is_looked_at_where_a_tool_writes(run: StoredRun):
    edits = [reply(edit(number, old, new)) for number, old, new in ((2, "a", "b"), (5, "b", "c"))]
    ran = reply(call(3, "run_command"))
    await run.loop(Script(read(1), edits[0], ran, read(4), edits[1], DONE), extra=[Command()]).run()
    assert run.looked_at == [[], ["f.txt"], None, [], None]
