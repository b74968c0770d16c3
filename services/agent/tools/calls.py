"""What the loop and the tools say to each other: calls, results, and the protocol that every tool follows."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol

from services.agent.workspace import FileChange


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What the model is told of a tool.

    ``writes``: it changes something, so it runs alone and in order. ``outside``: what it does is not undone with the
    worktree, so a call that was broken off is never made again: the model is told that its end is unknown.
    ``resident``: a program does it that goes on between calls.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    writes: bool
    outside: bool = False
    resident: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """``input``: the parsed JSON, or the text as it came where that was not valid JSON."""

    id: str
    name: str
    input: Any


@dataclass(frozen=True, slots=True)
class ToolResult:
    """``content`` can be stored as JSON and shown in a terminal; at most ``MAX_OUTPUT_CHARACTERS`` and a note.

    ``malformed``: the arguments did not fit the schema, or there is no such tool; nothing was done. ``took``: how long
    the tool ran.
    """

    tool_use_id: str
    content: str
    is_error: bool = False
    changed: tuple[FileChange, ...] = ()
    malformed: bool = False
    took: timedelta = field(default=timedelta(), compare=False)


@dataclass(frozen=True, slots=True)
class Completion:
    summary: str
    status: Literal["done", "blocked"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool that succeeded says, and which files it changed."""

    content: str
    changed: tuple[FileChange, ...] = ()


class ToolError(Exception):
    """The tool could not do what was asked; the message is for the model."""


class MalformedInputError(ToolError):
    """The arguments do not fit the tool's schema."""


class Tool(Protocol):
    """One tool of one run. Arguments are whatever the model sent: nothing about them may be taken for granted."""

    @property
    def spec(self) -> ToolSpec: ...

    def subject(self, arguments: Any) -> str:
        """What the call is about, for a person: any length, any characters; must not raise."""
        ...

    async def run(self, arguments: Any) -> Outcome:
        """Raises ``ToolError`` or ``WorkspaceError`` for all that the model can put right; anything else is a bug."""
        ...
