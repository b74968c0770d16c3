"""A scripted model, and a run's durable side without Postgres: what the loop's tests drive real tools with."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from services.agent.conversation import Conversation
from services.agent.endings import Limits
from services.agent.loop import Loop
from services.agent.model import Fragment, Reply, Watch
from services.agent.recording import Durable
from services.agent.tools import FileChange, Toolbox, ToolCall, ToolResult, Workspace
from services.agent.tools.calls import Tool
from services.agent.transcript import Transcript
from services.contracts.words import EventKind
from services.jobs.errors import LeaseLostError
from services.jobs.messaging import InboxMessage
from services.jobs.models import Checkpoint, ModelUse, SavedTree, Standing, StoredMessage, Usage
from services.jobs.unit import Draft

PROMPT = "Change a to b."
BIG = "big.bin"
"""A tree with a file of this name is too large to be stored."""
USAGE = Usage(input_tokens=10, output_tokens=5)


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": "c2lnbmVk"}


def reply(*blocks: dict[str, Any], stop: str = "tool_use") -> Reply:
    return Reply(list(blocks), stop, "scripted", USAGE)


def read(number: int, path: str = "f.txt") -> Reply:
    return reply(said("Reading."), call(number, "read_file", path=path))


def edit(number: int, old: str, new: str) -> dict[str, Any]:
    return call(number, "edit_file", path="f.txt", old_string=old, new_string=new)


def done(number: int, summary: str = "Changed.", status: str = "done") -> dict[str, Any]:
    return call(number, "task_complete", summary=summary, status=status)


class Script:
    """Answers by the transcript alone, as a model that is asked the same again would."""

    name = "scripted"
    spent_microusd = 0
    shares_budget = False

    def __init__(self, *replies: Reply, fragments: Sequence[Fragment] = ()) -> None:
        self._replies = replies
        self._fragments = fragments
        self.asked_with: list[list[dict[str, Any]]] = []

    @property
    def asked(self) -> int:
        return len(self.asked_with)

    async def __call__(self, messages: Sequence[bytes], watch: Watch) -> Reply:
        asked = [orjson.loads(message) for message in messages]
        self.asked_with.append(asked)
        for fragment in self._fragments:
            watch.on_fragment(fragment)
        place: int = sum(message["role"] == "assistant" for message in asked)
        return self._replies[place]

    def used(self, reply: Reply) -> ModelUse:
        return ModelUse(reply.usage, reply.model)


class RecordedDeltas:
    """Notes what watchers would be told, in the run's one record."""

    def __init__(self, record: list[str]) -> None:
        self._record = record

    def add(self, turn: int, fragment: Fragment) -> None:
        self._record.append(f"delta of turn {turn}: {fragment.text}")

    async def flush(self) -> None:
        self._record.append("flush")

    async def reset(self, turn: int, reason: str) -> None:
        self._record.append(f"reset of turn {turn}: {reason}")


class RecordedToolbox(Toolbox):
    """The real one, which notes in the run's record when it is used."""

    record: list[str]

    async def run(
        self, calls: Sequence[ToolCall], *, after_a_break: bool = False, interrupt: asyncio.Event | None = None
    ) -> list[ToolResult]:
        self.record += [f"ran {call.id}" for call in calls]
        return await super().run(calls, after_a_break=after_a_break, interrupt=interrupt)


class StoredRun:
    """What is stored of a run, and a tree that each attempt finds as the newest checkpoint left it."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.tree.mkdir(parents=True)
        (self.tree / "f.txt").write_text("a\n")
        self._stored_tree = folder / "stored"
        shutil.copytree(self.tree, self._stored_tree)
        self.messages: list[StoredMessage] = [Transcript([]).append("user", [said(PROMPT)])]
        self.turns = 0
        self.events: list[Draft] = []
        self.looked_at: list[list[str] | None] = []
        """Of each checkpoint of results: the files that were written; None: not known."""
        self.record: list[str] = []
        """All that happened, in order: deltas, tools run, messages stored."""
        self.saves = 0
        self.paid: list[bool] = []
        """Of each checkpoint: whether it ends a request."""
        self.lost_before = 0
        self.lost: Checkpoint | None = None
        """Number of the checkpoint that is refused, since the lease is lost; 0: none."""
        self.lost_after = 0
        """Number of the checkpoint after which nothing comes back any more; 0: none."""
        self.inbox: list[InboxMessage] = []
        """What its user has said."""
        self.read_through = 0
        self._versions: dict[str, str] = {}
        self.problem = ""
        """Why the tree could not be stored, last."""
        self.is_behind = False
        """Whether that was so of the tree that is stored, and no other was since."""
        self.copied = 0
        """How many of the messages are those of another run, which this one goes on from."""

    def is_retried(self) -> None:
        """It ended, and another run goes on from where it stood."""
        self.copied, self.turns = len(self.messages), 0

    def says(self, text: str, *, interrupt: bool = False) -> None:
        self.inbox.append(InboxMessage(len(self.inbox) + 1, text, interrupt, completes=False))

    def completes(self) -> None:
        self.inbox.append(InboxMessage(len(self.inbox) + 1, "", interrupt=False, completes=True))

    async def unread(self) -> list[InboxMessage]:
        return [message for message in self.inbox if message.number > self.read_through]

    def talk(self, model: Script, *, max_turns: int = 30) -> Loop:
        """A new attempt, from what is stored, that talks with the user."""
        return self.loop(model, conversation=Conversation(self.unread), max_turns=max_turns)

    def loop(
        self,
        model: Script,
        *,
        conversation: Conversation | None = None,
        ends_on_text: bool = False,
        max_turns: int = 30,
        extra: Sequence[Tool] = (),
        **limits: int,
    ) -> Loop:
        """A new attempt, from what is stored. ``limits``: those of `Limits` that are not as usual."""
        shutil.rmtree(self.tree)
        shutil.copytree(self._stored_tree, self.tree)
        workspace = Workspace(self.tree)
        workspace.restore_read_versions(self._versions)
        toolbox = RecordedToolbox(workspace, kind="task" if conversation else "code", extra=extra)
        toolbox.record = self.record

        async def saved_tree(written: Sequence[FileChange] | None) -> SavedTree:
            self.looked_at.append(None if written is None else [change.path for change in written])
            if written != []:
                self.problem = f"{BIG} is too large" if (self.tree / BIG).exists() else ""
            is_behind = written != [] and bool(self.problem)
            return SavedTree(None if written == [] or is_behind else b"", workspace.read_versions(), is_behind)

        return Loop(
            model=model,
            toolbox=toolbox,
            transcript=Transcript(self.messages, copied=self.copied),
            deltas=RecordedDeltas(self.record),
            durable=Durable(self._save, saved_tree, problem=lambda: self.problem, is_put_back=self.is_behind),
            limits=Limits(max_turns, self.turns, **limits),
            conversation=conversation,
            ends_on_text=ends_on_text,
        )

    async def _save(self, checkpoint: Checkpoint) -> Standing:
        self.saves += 1
        if self.saves == self.lost_before:
            self.lost = checkpoint
            raise LeaseLostError
        self.record += [f"stored {message.role} {message.number}" for message in checkpoint.messages]
        self.messages.extend(checkpoint.messages)
        self.events.extend(checkpoint.events)
        self.paid.append(checkpoint.usage is not None)
        self.turns += checkpoint.usage is not None
        if checkpoint.tree is not None:
            self._store_tree(checkpoint.tree)
        self.read_through = max(self.read_through, checkpoint.read_through)
        if self.saves == self.lost_after:
            raise LeaseLostError
        return Standing(has_unread=bool(await self.unread()), is_budgeted=False)

    def is_cancelled(self, left: Checkpoint | None) -> None:
        """Stores what is left as `Running.cancelled` does: where the message before it is stored."""
        if left is None or left.messages[0].number != len(self.messages) + 1:
            return
        self.messages.extend(left.messages)
        self.events.extend(left.events)
        if left.tree is not None:
            self._store_tree(left.tree)

    def _store_tree(self, tree: SavedTree) -> None:
        self._versions = dict(tree.read_versions)
        self.is_behind = tree.is_behind or (self.is_behind and tree.patch is None)
        if tree.patch is not None:
            shutil.rmtree(self._stored_tree)
            shutil.copytree(self.tree, self._stored_tree)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]

    @property
    def roles(self) -> list[str]:
        return [message.role for message in self.messages]

    @property
    def files(self) -> dict[str, str]:
        return {str(path.relative_to(self.tree)): path.read_text() for path in self.tree.rglob("*") if path.is_file()}

    def told(self, kind: EventKind) -> list[dict[str, Any]]:
        return [event.data for event in self.events if event.kind is kind]
