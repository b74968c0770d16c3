"""The tool loop with a scripted model and real tools: what it stores, when it ends, and how it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.agent.loop import MAX_IDENTICAL, Finished, Loop, RunFailedError
from services.agent.model import Fragment, Reply
from services.agent.prompts import prompt
from services.agent.tools import Toolbox, Workspace
from services.agent.transcript import Transcript
from services.contracts.words import ExitReason
from services.jobs.models import Checkpoint, SavedTree, StoredMessage, Usage

PROMPT = "Change a to b."


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}


def reply(*blocks: dict[str, Any], stop: str = "tool_use") -> Reply:
    return Reply(list(blocks), stop, "scripted", Usage(10, 5))


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


READ = reply(said("Reading."), call(1, "read_file", path="f.txt"))
EDIT = reply(said("Editing."), call(2, "edit_file", path="f.txt", old_string="a", new_string="b"))
DONE = reply(call(3, "task_complete", summary="Changed.", status="done"))


class Script:
    """Answers by the length of the transcript alone, as a model that is asked the same again would."""

    name = "scripted"

    def __init__(self, *replies: Reply) -> None:
        self._replies = replies
        self.asked = 0

    async def __call__(
        self,
        transcript: Transcript,
        on_fragment: Callable[[Fragment], None],
        on_reset: Callable[[str], Awaitable[None]],
    ) -> Reply:
        self.asked += 1
        place: int = sum(message["role"] == "assistant" for message in transcript.messages)
        return self._replies[place]


class NoDeltas:
    def add(self, turn: int, fragment: Fragment) -> None: ...
    async def flush(self) -> None: ...
    async def reset(self, turn: int, reason: str) -> None: ...


class KilledError(Exception):
    """The process died here."""


class Run:
    """A run's durable side: what was stored, and the tree as the last stored checkpoint has it."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.tree.mkdir(parents=True)
        (self.tree / "f.txt").write_text("a\n")
        self._stored_tree = folder / "stored"
        shutil.copytree(self.tree, self._stored_tree)
        self.stored: list[StoredMessage] = [Transcript([]).append("user", [said(PROMPT)])]
        self.turns = 0
        self.saves = 0
        self.dies_at = 0
        """Number of the save before which the process dies; 0: never."""
        self._versions: dict[str, str] = {}

    def loop(self, model: Script, **options: Any) -> Loop:
        """A new attempt, from what is stored."""
        shutil.rmtree(self.tree)
        shutil.copytree(self._stored_tree, self.tree)
        workspace = Workspace(self.tree)
        workspace.restore_read_versions(self._versions)

        async def saved_tree(wrote: bool) -> SavedTree:
            return SavedTree(b"" if wrote else None, workspace.read_versions())

        arguments: dict[str, Any] = {"turns": self.turns, "max_turns": 20, "ends_on_text": False, **options}
        return Loop(
            model=model,
            toolbox=Toolbox(workspace),
            transcript=Transcript(self.stored),
            deltas=NoDeltas(),
            save=self._save,
            saved_tree=saved_tree,
            **arguments,
        )

    async def _save(self, checkpoint: Checkpoint) -> None:
        self.saves += 1
        if self.saves == self.dies_at:
            raise KilledError
        self.stored.extend(checkpoint.messages)
        self.turns += checkpoint.usage is not None
        if checkpoint.tree is not None:
            self._versions = dict(checkpoint.tree.read_versions)
            if checkpoint.tree.patch is not None:
                shutil.rmtree(self._stored_tree)
                shutil.copytree(self.tree, self._stored_tree)

    @property
    def bodies(self) -> Sequence[bytes]:
        return [message.body for message in self.stored]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


async def test_a_run_reads_edits_and_is_done(run: Run):
    finished = await run.loop(Script(READ, EDIT, DONE)).run()
    assert finished == Finished("Changed.")
    assert (run.tree / "f.txt").read_text() == "b\n"
    assert [message.role for message in run.stored] == ["user", "assistant", "user", "assistant", "user", "assistant"]
    assert [message.number for message in run.stored] == [1, 2, 3, 4, 5, 6]
    assert run.turns == 3


async def test_killed_at_any_point_it_ends_with_the_same_tree_and_transcript(tmp_path: Path):
    whole = Run(tmp_path / "whole")
    await whole.loop(Script(READ, EDIT, DONE)).run()
    assert whole.saves == 5
    for point in range(1, whole.saves + 1):
        run, model = Run(tmp_path / str(point)), Script(READ, EDIT, DONE)
        run.dies_at = point
        with pytest.raises(KilledError):
            await run.loop(model).run()
        assert await run.loop(model).run() == Finished("Changed.")
        assert (run.tree / "f.txt").read_text() == "b\n"
        assert run.bodies == whole.bodies
        # A reply that was stored is never asked for again.
        assert model.asked == whole.turns + (point in {1, 3, 5})


async def test_no_tool_runs_before_its_call_is_stored(run: Run):
    run.dies_at = 3  # the reply that asks for the edit
    with pytest.raises(KilledError):
        await run.loop(Script(READ, EDIT, DONE)).run()
    assert (run.tree / "f.txt").read_text() == "a\n"


async def test_who_ends_a_turn_without_saying_so_is_asked_once(run: Run):
    ended = reply(said("I think that is all."), stop="end_turn")
    model = Script(ended, ended)
    assert await run.loop(model).run() == Finished("I think that is all.")
    assert model.asked == 2
    assert Transcript(run.stored).times_said(prompt("nudge")) == 1


async def test_an_answer_in_text_ends_a_task(run: Run):
    model = Script(reply(said("Forty-two."), stop="end_turn"))
    assert await run.loop(model, ends_on_text=True).run() == Finished("Forty-two.")
    assert model.asked == 1


async def test_a_blocked_run_says_so(run: Run):
    blocked = reply(call(1, "task_complete", summary="No such file.", status="blocked"))
    assert await run.loop(Script(blocked)).run() == Finished("No such file.", blocked=True)


async def test_the_limit_on_turns_counts_those_of_earlier_attempts(run: Run):
    run.turns = 19
    model = Script(READ, EDIT, DONE)
    with pytest.raises(RunFailedError, match="not finished after 20 turns") as failed:
        await run.loop(model).run()
    assert failed.value.reason is ExitReason.MAX_TURNS
    assert model.asked == 1


async def test_calls_of_a_cut_off_reply_are_not_run(run: Run):
    cut = reply(said("Writing."), call(1, "delete_file", path="f.txt"), stop="max_tokens")
    with pytest.raises(RunFailedError, match="cut off") as failed:
        await run.loop(Script(cut, cut, cut)).run()
    assert failed.value.reason is ExitReason.STUCK
    assert (run.tree / "f.txt").exists()
    assert not any(b"tool_use" in body for body in run.bodies)


async def test_calls_of_a_refusal_are_not_run(run: Run):
    refused = reply(said("I will not."), call(1, "delete_file", path="f.txt"), stop="refusal")
    with pytest.raises(RunFailedError, match="I will not") as failed:
        await run.loop(Script(refused)).run()
    assert failed.value.reason is ExitReason.MODEL_REFUSED
    assert (run.tree / "f.txt").exists()
    assert len(run.stored) == 1


async def test_a_pause_is_gone_on_from(run: Run):
    paused = reply(said("Thinking."), stop="pause_turn")
    model = Script(paused, DONE)
    assert await run.loop(model).run() == Finished("Changed.")


async def test_a_full_window_is_told(run: Run):
    with pytest.raises(RunFailedError) as failed:
        await run.loop(Script(reply(stop="model_context_window_exceeded"))).run()
    assert failed.value.reason is ExitReason.CONTEXT_EXHAUSTED


async def test_the_same_call_again_and_again_is_noticed(run: Run):
    model = Script(*[READ] * (MAX_IDENTICAL + 1))
    with pytest.raises(RunFailedError, match="same call") as failed:
        await run.loop(model).run()
    assert failed.value.reason is ExitReason.STUCK
    assert model.asked == MAX_IDENTICAL
    assert any(prompt("repeating").encode()[:40] in body for body in run.bodies)


async def test_calls_that_are_always_malformed_are_given_up_on(run: Run):
    odd = [reply(call(number, "read_file", road=number)) for number in range(4)]
    with pytest.raises(RunFailedError, match="malformed") as failed:
        await run.loop(Script(*odd)).run()
    assert failed.value.reason is ExitReason.STUCK
