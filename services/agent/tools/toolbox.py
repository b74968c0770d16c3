"""One run's tools: finds the tool of each call, runs calls in a safe order, and turns what goes wrong into results."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Literal

from services.agent.tools.calls import (
    Completion,
    MalformedInputError,
    Tool,
    ToolCall,
    ToolError,
    ToolResult,
    ToolSpec,
)
from services.agent.tools.files import DeleteFile, EditFile, MoveFile, ReadFile, WriteFile
from services.agent.tools.finishing import AskUser, TaskComplete
from services.agent.tools.searching import ListFiles, SearchCode
from services.agent.tools.showing import MAX_OUTPUT_CHARACTERS, clipped, shortened, visible, visible_line
from services.agent.workspace import Workspace, WorkspaceError

SIDE_BY_SIDE = 8
_SUBJECT_CHARACTERS = 120
# What a tool may add in notes to output that it has clipped itself.
_NOTES_CHARACTERS = 1_000


class Toolbox:
    """The tools of one run over its ``workspace``; ``kind`` "task" has none that write, and can ask its user.

    ``searches``: how many ripgrep processes may run at once, shared by all runs of a process; its own where not given.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        kind: Literal["code", "task"] = "code",
        searches: asyncio.Semaphore | None = None,
    ) -> None:
        self.completion: Completion | None = None
        self.question: str | None = None
        tools = self._made(workspace, kind, searches or asyncio.Semaphore(SIDE_BY_SIDE))
        self._tools: dict[str, Tool] = {tool.spec.name: tool for tool in tools}
        self.specs: tuple[ToolSpec, ...] = tuple(self._tools[name].spec for name in sorted(self._tools))
        self._writers = frozenset(spec.name for spec in self.specs if spec.writes)

    def _made(self, workspace: Workspace, kind: Literal["code", "task"], searches: asyncio.Semaphore) -> list[Tool]:
        tools: list[Tool] = [
            ListFiles(workspace, searches),
            ReadFile(workspace),
            SearchCode(workspace, searches),
            TaskComplete(self._complete),
        ]
        if kind == "task":
            return [*tools, AskUser(self._ask)]
        return [*tools, WriteFile(workspace), EditFile(workspace), DeleteFile(workspace), MoveFile(workspace)]

    def _complete(self, completion: Completion) -> None:
        self.completion = completion

    def _ask(self, question: str) -> None:
        self.question = question

    def subject(self, call: ToolCall) -> str:
        """What ``call`` is about, in one line of at most 120 characters that is safe to show."""
        tool = self._tools.get(call.name)
        text = tool.subject(call.input) if tool else call.name
        # Cut before and after: spelling out may make it longer, and there may be very much of it.
        return shortened(visible_line(text[: _SUBJECT_CHARACTERS + 1]), _SUBJECT_CHARACTERS)

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """The results of ``calls``, in their order; neighbours that only read run side by side, writers alone.

        Raises nothing for what the model did. When cancelled, what was started is stopped first.
        """
        results: list[ToolResult] = []
        for writes, group in itertools.groupby(calls, key=lambda call: call.name in self._writers):
            if writes:
                results += [await self._run_one(call) for call in group]
            else:
                results += await self._run_side_by_side(list(group))
        return results

    async def _run_side_by_side(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def run(call: ToolCall) -> ToolResult:
            async with places:
                return await self._run_one(call)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(call)) for call in calls]
        return [task.result() for task in tasks]

    async def _run_one(self, call: ToolCall) -> ToolResult:
        tool = self._tools.get(call.name)
        if tool is None:
            words = f"There is no tool {shortened(call.name, 60)!r}: use one of {', '.join(sorted(self._tools))}."
            return _failed(call, words, malformed=True)
        try:
            outcome = await tool.run(call.input)
        except (ToolError, WorkspaceError) as error:
            return _failed(call, str(error), malformed=isinstance(error, MalformedInputError))
        return ToolResult(call.id, _bounded(outcome.content), changed=outcome.changed)


def _failed(call: ToolCall, words: str, *, malformed: bool) -> ToolResult:
    return ToolResult(call.id, _bounded(words), is_error=True, malformed=malformed)


def _bounded(content: str) -> str:
    """Whatever the tool made of it: safe to store and to show, and no longer than a result may be."""
    text = visible(content)
    return text if len(text) <= MAX_OUTPUT_CHARACTERS + _NOTES_CHARACTERS else clipped(text)
