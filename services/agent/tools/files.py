"""The tools that read and change single files. What may be touched, and when, the workspace decides."""

import asyncio
from typing import Annotated, ClassVar

from pydantic import Field

from services.agent.tools.calls import Outcome, ToolError
from services.agent.tools.inputs import FilePath, Input, InputTool, Text
from services.agent.tools.outputs import MAX_LINE_CHARACTERS, OUTPUTS, Outputs
from services.agent.tools.replacing import replaced
from services.agent.tools.showing import clipped, visible
from services.agent.workspace import Excerpt, Parts, Workspace, joined
from services.agent.workspace.reading import lines_of

LineNumber = Annotated[int, Field(ge=1, le=1_000_000_000)]


class ReadFileInput(Input):
    path: FilePath
    start_line: LineNumber | None = Field(default=None, description="First line, counted from 1")
    end_line: LineNumber | None = Field(default=None, description="Last line, included")


class ReadFile(InputTool[ReadFileInput]):
    name = "read_file"
    description = (
        "Read a text file. Lines come as number, tab, text. Files over 256 KB need start_line and end_line. "
        "A file must be read before it is changed."
    )
    input_model = ReadFileInput

    def __init__(self, workspace: Workspace, outputs: Outputs | None = None) -> None:
        """``outputs``: what was too long for a result, to be read as files are."""
        self._workspace = workspace
        self._outputs = outputs

    async def execute(self, arguments: ReadFileInput) -> Outcome:
        first, last = arguments.start_line or 1, arguments.end_line
        if last is not None and last < first:
            raise ToolError(f"end_line {last} comes before start_line {first}: give the smaller one first")
        if self._outputs is not None and arguments.path.startswith(OUTPUTS):
            printed = self._outputs.read(arguments.path)
            return Outcome(await asyncio.to_thread(_printed, printed, arguments.path, first, last))
        parts = self._workspace.locate(arguments.path)
        if self._workspace.is_slow(parts):
            return Outcome(await asyncio.to_thread(self._read, parts, first, last))
        return Outcome(self._read(parts, first, last))

    def _read(self, parts: Parts, first: int, last: int | None) -> str:
        return _numbered(self._workspace.read(parts, first=first, last=last), joined(parts))


def _printed(output: bytes, path: str, first: int, last: int | None) -> str:
    return _numbered(lines_of(output.decode(errors="backslashreplace"), first=first, last=last), path)


def _numbered(excerpt: Excerpt, path: str) -> str:
    if not excerpt.lines:
        return _nothing(excerpt, path)
    lines = (_line(number, text) for number, text in enumerate(excerpt.lines, excerpt.first))
    return clipped("\n".join(lines)) + "\n" + _note(excerpt)


def _line(number: int, text: str) -> str:
    if len(text) > MAX_LINE_CHARACTERS:
        text = f"{text[:MAX_LINE_CHARACTERS]} [… the rest of this line is left out]"
    return f"{number}\t{visible(text)}"


def _nothing(excerpt: Excerpt, path: str) -> str:
    if excerpt.total == 0:
        return f"{path!r} is empty."
    raise ToolError(f"{path!r} has {excerpt.total} lines, so none from line {excerpt.first} on: start earlier")


def _note(excerpt: Excerpt) -> str:
    last = excerpt.first + len(excerpt.lines) - 1
    total = "more" if excerpt.total is None else excerpt.total
    facts = [f"lines {excerpt.first}-{last} of {total}"]
    if excerpt.line_end == "\r\n":
        facts.append("line ends are CRLF, kept by edit_file")
    if excerpt.byte_order_mark:
        facts.append("begins with a byte order mark, kept by edit_file")
    return f"[{'; '.join(facts)}]"


class WriteFileInput(Input):
    path: FilePath
    content: Text = Field(description="The file's whole new text")


class WriteFile(InputTool[WriteFileInput]):
    name = "write_file"
    description = (
        "Make a new text file, or replace all of one that was read before. Missing directories are made. "
        "Prefer edit_file for changes to a part."
    )
    writes = True
    input_model = WriteFileInput

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def execute(self, arguments: WriteFileInput) -> Outcome:
        parts = self._workspace.locate(arguments.path)
        change = self._workspace.write(parts, arguments.content)
        if change is None:
            return Outcome(f"{joined(parts)!r} has exactly this content already; nothing changed.")
        verb = "Created" if change.change == "added" else "Replaced"
        return Outcome(f"{verb} {change.path!r} ({len(arguments.content):,} characters).", (change,))


class EditFileInput(Input):
    path: FilePath
    old_string: Text = Field(description="Text to replace, exactly as in the file, without line numbers")
    new_string: Text = Field(description="Text to put in its place")
    replace_all: bool = Field(default=False, description="Replace every occurrence")


class EditFile(InputTool[EditFileInput]):
    name = "edit_file"
    description = (
        "Replace a piece of text in a file that was read before. old_string must occur exactly once unless "
        "replace_all is true."
    )
    writes = True
    input_model = EditFileInput

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def execute(self, arguments: EditFileInput) -> Outcome:
        parts = self._workspace.locate(arguments.path)
        count = 0

        def change(text: str) -> str:
            nonlocal count
            new, count = replaced(
                text,
                arguments.old_string,
                arguments.new_string,
                replace_all=arguments.replace_all,
                path=joined(parts),
            )
            return new

        made = self._workspace.edit(parts, change)
        return Outcome(f"Replaced {count} {'place' if count == 1 else 'places'} in {made.path!r}.", (made,))


class DeleteFileInput(Input):
    path: FilePath


class DeleteFile(InputTool[DeleteFileInput]):
    name = "delete_file"
    description = "Delete one file or symbolic link (never what a link points to)."
    writes = True
    input_model = DeleteFileInput

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def execute(self, arguments: DeleteFileInput) -> Outcome:
        change = self._workspace.delete(self._workspace.locate(arguments.path))
        return Outcome(f"Deleted {change.path!r}.", (change,))


class MoveFileInput(Input):
    old_path: FilePath
    new_path: FilePath


class MoveFile(InputTool[MoveFileInput]):
    name = "move_file"
    description = "Move or rename one file. Nothing may be at new_path yet; missing directories are made."
    writes = True
    subject_fields: ClassVar[tuple[str, ...]] = ("old_path", "new_path")
    input_model = MoveFileInput

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def execute(self, arguments: MoveFileInput) -> Outcome:
        old, new = self._workspace.locate(arguments.old_path), self._workspace.locate(arguments.new_path)
        changes = self._workspace.move(old, new)
        return Outcome(f"Moved {joined(old)!r} to {joined(new)!r}.", changes)
