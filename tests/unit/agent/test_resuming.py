"""A run whose attempts are lost, at any point: it ends with the same tree and the same bytes as one left in peace."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.agent.endings import Finished, RunFailedError
from services.agent.transcript import Transcript
from services.contracts.words import EventKind
from services.jobs.errors import LeaseLostError
from tests.unit.agent.scripted import Script, StoredRun, call, done, edit, read, reply, said

# One of each: calls that read, that write, that fail and that repeat, replies cut off, paused and without a call.
STORY = (
    read(1),
    reply(said("Editing."), edit(2, "a", "b"), call(3, "write_file", path="new/g.txt", content="g\n")),
    reply(said("Cut"), call(4, "delete_file", path="f.txt"), stop="max_tokens"),
    reply(call(5, "read_file", road="f.txt")),
    *[read(number) for number in (6, 7, 8)],
    reply(said("Well."), stop="end_turn"),
    reply(said("So"), stop="pause_turn"),
    reply(edit(9, "missing", "c"), done(10)),
    reply(call(11, "move_file", old_path="f.txt", new_path="h.txt"), done(12)),
)
SAVES = 15
WRITERS = {"toolu_2", "toolu_3", "toolu_9", "toolu_11"}


def story() -> Script:
    return Script(*STORY)


@pytest.fixture
async def whole(tmp_path: Path) -> StoredRun:
    """The run that nothing happened to."""
    run = StoredRun(tmp_path / "whole")
    await run.loop(story()).run()
    return run


async def test_the_story_has_as_many_checkpoints_as_are_tried(whole: StoredRun):
    assert whole.saves == SAVES
    assert whole.files.keys() == {"h.txt", "new/g.txt"}


@pytest.mark.parametrize("point", range(1, SAVES + 1))
@pytest.mark.parametrize("when", ["lost_before", "lost_after"])
async def test_lost_at_any_checkpoint_it_ends_the_same(tmp_path: Path, whole: StoredRun, when: str, point: int):
    run = StoredRun(tmp_path / "run")
    setattr(run, when, point)
    first, second = story(), story()
    with pytest.raises(LeaseLostError):
        await run.loop(first).run()
    assert run.bodies == whole.bodies[: len(run.bodies)]
    assert await run.loop(second).run() == Finished("Changed.")
    assert run.files == whole.files
    assert run.bodies == whole.bodies
    assert run.turns == whole.turns
    asked_twice = first.asked + second.asked - whole.turns
    # The reply that was under way, and one that was to be stored with what its tools had read.
    assert asked_twice <= (2 if run.lost is not None and run.lost.usage and run.lost.messages[1:] else 1)
    assert (run.turns, sum(run.paid)) == (whole.turns, whole.turns), "no checkpointed turn was asked for twice"


async def test_lost_again_and_again_it_ends_the_same(tmp_path: Path, whole: StoredRun):
    """Each attempt gets one checkpoint further."""
    run = StoredRun(tmp_path / "run")
    for attempt in range(1, SAVES + 1):
        run.lost_after = attempt
        with pytest.raises(LeaseLostError):
            await run.loop(story()).run()
    assert await run.loop(story()).run() == Finished("Changed.")
    assert (run.files, run.bodies, run.turns) == (whole.files, whole.bodies, whole.turns)


@pytest.mark.parametrize("point", range(1, SAVES + 1))
async def test_nothing_is_written_before_its_call_is_stored(tmp_path: Path, point: int):
    run = StoredRun(tmp_path)
    run.lost_before = point
    with pytest.raises(LeaseLostError):
        await run.loop(story()).run()
    stored = b"".join(run.bodies)
    ran = {line.removeprefix("ran ") for line in run.record if line.startswith("ran ")}
    assert all(identifier.encode() in stored for identifier in ran & WRITERS)


async def test_repeats_count_over_attempts(tmp_path: Path):
    """Else a run that is interrupted now and then would go round in circles up to its limit of turns."""
    run = StoredRun(tmp_path)
    run.lost_after = 2
    model = Script(*[read(number) for number in range(10)])
    with pytest.raises(LeaseLostError):
        await run.loop(model).run()
    with pytest.raises(RunFailedError, match="same call 4 times"):
        await run.loop(model).run()
    assert run.turns == 4


@pytest.mark.parametrize("point", range(1, SAVES + 1))
async def test_cancelled_at_any_checkpoint_it_keeps_what_its_calls_came_to(
    tmp_path: Path, whole: StoredRun, point: int
):
    """The checkpoint is refused, and only by that the attempt hears of the cancel."""
    run = StoredRun(tmp_path / "run")
    run.lost_before = point
    loop = run.loop(story())
    with pytest.raises(LeaseLostError):
        await loop.run()
    left = loop.left()
    run.is_cancelled(left)
    assert Transcript(run.messages).open_calls() == []
    assert run.bodies[: len(whole.bodies)] == whole.bodies[: len(run.bodies)]
    assert left is None or EventKind.TURN_STARTED not in [event.kind for event in left.events], "none follows"
    run.lost_before = 0
    assert await run.loop(story()).run() == Finished("Changed.")
    assert run.files == whole.files
    ended = [event["toolUseId"] for event in run.told(EventKind.TOOL_ENDED)]
    assert ended == [event["toolUseId"] for event in whole.told(EventKind.TOOL_ENDED)]
    assert all(run.record.count(f"ran {writer}") == 1 for writer in WRITERS)
