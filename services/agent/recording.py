"""What is to be stored, and told, of what a turn's tools did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from services.agent import events
from services.agent.prompts import prompt
from services.agent.tools import FileChange, Toolbox, ToolCall, ToolResult
from services.jobs.models import Checkpoint, SavedTree, Standing
from services.jobs.unit import Draft

STORED_AGAIN = prompt("tree_stored_again")
_NOT_KNOWN = "not known"
_MOST_FILES_TOLD = 1_000


@dataclass
class Durable:
    """Where a loop keeps what must not be lost."""

    save: Callable[[Checkpoint], Awaitable[Standing]]
    """Stores a checkpoint, fenced."""
    saved_tree: Callable[[Sequence[FileChange] | None], Awaitable[SavedTree | None]]
    """What to store of the worktree, given what tools wrote (None: not known); None where that is as it was."""
    changed: Callable[[], Sequence[FileChange]] = tuple
    """What the last ``saved_tree`` found to differ from the one before it."""
    problem: Callable[[], str] = str
    """Why the worktree could not be stored, last; empty: it could."""
    is_put_back: bool = False
    """An earlier attempt could not store the worktree, which is as it was before that, and nothing was stored since."""


class Recording:
    def __init__(self, toolbox: Toolbox, durable: Durable) -> None:
        self._toolbox = toolbox
        self._durable = durable
        self._is_sure = True
        """Whether all that was written since everything was looked at is what tools have told of."""
        self._is_open = False
        """Whether something else may write in the worktree at any time."""
        self._news = [prompt("tree_put_back")] if durable.is_put_back else []
        self._problem = _NOT_KNOWN if durable.is_put_back else ""
        """Why the worktree is not stored, as the model has heard; empty: it is."""
        self._is_behind = durable.is_put_back
        """Whether what is stored is still taken for behind: from when the model hears of it on, it is not."""

    @property
    def has_warning(self) -> bool:
        """Whether there is bad news that the model has not heard."""
        return any(each != STORED_AGAIN for each in self._news)

    def news(self) -> list[str]:
        """What the model is to hear of its worktree; it is told once."""
        news, self._news = self._news, []
        return news

    def of(
        self, turn: int, calls: Sequence[ToolCall], results: Sequence[ToolResult]
    ) -> Callable[[], Coroutine[Any, Any, Checkpoint]]:
        """What makes, once, all that is to be stored of ``results`` but for the message that they are in."""
        changes = [change for result in results for change in result.changed]
        told = [*ended(turn, calls, results), *map(events.file_changed, changes)]
        checkpoint = Checkpoint(events=told, outputs=self._toolbox.outputs.take_new())
        silently = self._toolbox.may_have_written(calls)
        written = self._written(calls, results, changes, silently=silently)
        return partial(self._with_tree, checkpoint, written, told_of=changes if silently else None)

    def _written(
        self,
        calls: Sequence[ToolCall],
        results: Sequence[ToolResult],
        changes: Sequence[FileChange],
        *,
        silently: bool,
    ) -> Sequence[FileChange] | None:
        """``changes``, where that is all that can have been written since the last look at the worktree; else None.

        ``silently``: more may have been changed than that.
        """
        self._is_open = self._is_open or self._toolbox.lets_others_write(calls)
        self._is_sure = self._is_sure and not self._toolbox.failed_to_write(calls, results)
        if not silently and not self._is_behind and (not changes or (self._is_sure and not self._is_open)):
            return changes
        self._is_sure, self._is_behind = True, False  # everything is looked at now
        return None

    async def _with_tree(
        self, checkpoint: Checkpoint, written: Sequence[FileChange] | None, *, told_of: Sequence[FileChange] | None
    ) -> Checkpoint:
        """``written``: what to save of the worktree; None: whatever has changed.

        ``told_of``: what is told already where a command may have changed more, which only the worktree can tell.
        """
        tree = await self._durable.saved_tree(written)
        told = list(checkpoint.events)
        if told_of is not None:
            known = {change.path for change in told_of}
            found = [change for change in self._durable.changed() if change.path not in known]
            told += [events.file_changed(change) for change in found[:_MOST_FILES_TOLD]]
        if written != []:
            told += self._noted(self._durable.problem())
        return replace(checkpoint, tree=tree, events=told)

    def _noted(self, problem: str) -> list[Draft]:
        """Have the model hear of it where it has become another; what the run's log says of that."""
        if problem == self._problem:
            return []
        self._problem = problem
        if problem:
            self._news.append(prompt("tree_too_large").format(reason=problem))
            return [events.log_line("warning", f"what is changed from here on is not stored: {problem}")]
        self._news.append(STORED_AGAIN)
        return [events.log_line("info", "what is changed is stored again")]


def ended(turn: int, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> list[Draft]:
    """What watchers are told of calls that have come to ``results``."""
    return [events.tool_ended(turn, call, result) for call, result in zip(calls, results, strict=True)]
