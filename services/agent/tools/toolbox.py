"""One run's tools: finds the tool of each call, runs calls in a safe order, and turns what goes wrong into results."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal, TypeAlias, assert_never

from services.agent.side_by_side import finish
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
from services.agent.tools.outputs import Outputs
from services.agent.tools.searching import ListFiles, SearchCode
from services.agent.tools.showing import MAX_OUTPUT_CHARACTERS, excerpt, shortened, visible, visible_line
from services.agent.tools.withdrawn import WithdrawnTool
from services.agent.workspace import Workspace, WorkspaceError

SIDE_BY_SIDE = 8
_SUBJECT_CHARACTERS = 120
# What a tool may add in notes to output that it has clipped itself.
_NOTES_CHARACTERS = 1_000
_BROKEN_OFF = (
    "Interrupted: the process that ran this ended before its result was known. It may have taken effect outside of the "
    "worktree, or not; the worktree is as it was before this call. Find out before you do it again."
)

Kind: TypeAlias = Literal["code", "task", "plan"]


class Toolbox:
    """The tools of one run over its ``workspace``.

    ``kind``: a "code" run changes files; a "task" has no tool that writes, and can ask its user; a "plan" only reads.
    ``extra``: tools beside the usual ones (commands, those of MCP servers). ``searches``: how many ripgrep processes
    may run at once, shared by all runs of a process; its own where not given. ``offered``: what the run's requests
    offer since they began; of that, what is in none of the others any more is answered so.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        kind: Kind = "code",
        searches: asyncio.Semaphore | None = None,
        outputs: Outputs | None = None,
        extra: Sequence[Tool] = (),
        offered: Sequence[ToolSpec] = (),
    ) -> None:
        self.completion: Completion | None = None
        self.question: str | None = None
        self.outputs = outputs or Outputs()
        tools = [*self._usual(workspace, kind, searches or asyncio.Semaphore(SIDE_BY_SIDE)), *extra]
        self._tools: dict[str, Tool] = {tool.spec.name: tool for tool in tools}
        self._usable = sorted(self._tools)
        self._tools |= {spec.name: WithdrawnTool(spec) for spec in offered if spec.name not in self._tools}
        self._specs = {name: tool.spec for name, tool in self._tools.items()}
        self.specs: tuple[ToolSpec, ...] = tuple(self._specs[name] for name in sorted(self._specs))

    def _usual(self, workspace: Workspace, kind: Kind, searches: asyncio.Semaphore) -> list[Tool]:
        tools: list[Tool] = [
            ListFiles(workspace, searches),
            ReadFile(workspace, self.outputs),
            SearchCode(workspace, searches),
            TaskComplete(self._complete),
        ]
        match kind:
            case "plan":
                return tools
            case "task":
                return [*tools, AskUser(self._ask)]
            case "code":
                return [*tools, WriteFile(workspace), EditFile(workspace), DeleteFile(workspace), MoveFile(workspace)]
            case _:
                assert_never(kind)

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

    def only_reads(self, calls: Sequence[ToolCall]) -> bool:
        """Whether nothing that ``calls`` do would be missed, were it forgotten that they were made."""
        return not any(self._writes(call) or self._is_outside(call) for call in calls)

    def may_have_written(self, calls: Sequence[ToolCall]) -> bool:
        """Whether ``calls`` may have changed files without saying which."""
        return any(self._writes(call) and self._is_outside(call) for call in calls)

    def lets_others_write(self, calls: Sequence[ToolCall]) -> bool:
        """Whether a program may write in the workspace after ``calls``: one that they began, or a server of tools."""
        return any(spec.resident for spec in self.specs) or any(self._is_outside(call) for call in calls)

    def failed_to_write(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> bool:
        """Whether one of ``calls`` failed that may have written something before."""
        return any(result.is_error and self._writes(call) for call, result in zip(calls, results, strict=True))

    def _writes(self, call: ToolCall) -> bool:
        return call.name in self._specs and self._specs[call.name].writes

    def _is_outside(self, call: ToolCall) -> bool:
        return call.name in self._specs and self._specs[call.name].outside

    async def run(
        self, calls: Sequence[ToolCall], *, after_a_break: bool = False, interrupt: asyncio.Event | None = None
    ) -> list[ToolResult]:
        """The results of ``calls``, in their order; neighbours that only read run side by side, writers alone.

        ``after_a_break``: an earlier attempt may have made them: those with effects outside are not made again.
        ``interrupt``: when it is set, what is under way is stopped, and no further call is made.
        Raises nothing for what the model did. When cancelled, what was started is stopped first.
        """
        results: list[ToolResult] = []
        for writes, group in itertools.groupby(calls, key=self._writes):
            if writes:
                results += [await self._unless(interrupt, call, after_a_break) for call in group]
            else:
                results += await self._run_side_by_side(list(group), after_a_break, interrupt)
        return results

    async def _run_side_by_side(
        self, calls: Sequence[ToolCall], after_a_break: bool, interrupt: asyncio.Event | None
    ) -> list[ToolResult]:
        if len(calls) == 1:
            return [await self._unless(interrupt, calls[0], after_a_break)]
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def run(call: ToolCall) -> ToolResult:
            async with places:
                return await self._unless(interrupt, call, after_a_break)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(call)) for call in calls]
        return [task.result() for task in tasks]

    async def _unless(self, interrupt: asyncio.Event | None, call: ToolCall, after_a_break: bool) -> ToolResult:
        if after_a_break and self._is_outside(call):
            return _failed(call, _BROKEN_OFF)
        if interrupt is None:
            return await self._timed(call)
        if interrupt.is_set():
            return _failed(call, "Not begun: your user has something to say first.")
        running = asyncio.create_task(self._timed(call), name=f"tool {call.name}")
        stopping = asyncio.create_task(interrupt.wait(), name="interrupt")
        try:
            await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            return _failed(call, "Stopped half-way: your user has something to say.")
        finally:
            await finish(running, stopping)

    async def _timed(self, call: ToolCall) -> ToolResult:
        began = time.monotonic()
        result = await self._run_one(call)
        return replace(result, took=timedelta(seconds=time.monotonic() - began))

    async def _run_one(self, call: ToolCall) -> ToolResult:
        tool = self._tools.get(call.name)
        if tool is None:
            words = f"There is no tool {shortened(call.name, 60)!r}: use one of {', '.join(self._usable)}."
            return _failed(call, words, malformed=True)
        try:
            outcome = await tool.run(call.input)
        except (ToolError, WorkspaceError) as error:
            return _failed(call, self._bounded(str(error)), malformed=isinstance(error, MalformedInputError))
        return ToolResult(call.id, self._bounded(outcome.content), changed=outcome.changed)

    def _bounded(self, content: str) -> str:
        """Whatever the tool made of it: safe to store and to show, and no longer than a result may be.

        What is longer is kept, to be read by ranges of lines.
        """
        most = MAX_OUTPUT_CHARACTERS + _NOTES_CHARACTERS
        if len(content) <= most and len(text := visible(content)) <= most:
            return text
        return f"{excerpt(content)}\n{self.outputs.kept(content.encode(errors='backslashreplace'))}"


def _failed(call: ToolCall, words: str, *, malformed: bool = False) -> ToolResult:
    return ToolResult(call.id, words, is_error=True, malformed=malformed)
