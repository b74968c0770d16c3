"""The tools that look at many files: which there are, and where a pattern occurs."""

import asyncio
import os
import re
from typing import Annotated

from pydantic import Field

from services.agent.tools.calls import Outcome, ToolError
from services.agent.tools.globs import Glob
from services.agent.tools.inputs import FilePath, Input, InputTool, Text
from services.agent.tools.printed import Matches, Names
from services.agent.tools.ripgrep import Ended, ripgrep
from services.agent.tools.scope import Scope
from services.agent.tools.showing import clipped, visible_line
from services.agent.workspace import Parts, Workspace, joined

_DIRECTORY = Annotated[Text, Field(max_length=4_096, description="Directory to list; '.' is the workspace's root")]
_GLOB = Annotated[
    Text,
    Field(
        max_length=200,
        description="Keeps only files that match, such as '*.py', 'src/**/*.{ts,tsx}' or '!*.lock'; "
        "with a '/' it is taken from the workspace's root",
    ),
]
_PATTERN = r"Regular expression (Rust syntax; \d is 0 to 9)"
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_PLAIN_DIGITS = {r"\d": "[0-9]", r"\D": "[^0-9]"}
_INCLUDE_IGNORED = Field(default=False, description="Also files that .gitignore leaves out")
_MAX_SEARCHED_BYTES = 1024**3
"""About a second of searching; sparse files can claim any size."""
_STOPPED = "Nothing that was asked for was found before the search had to stop: narrow it with a path."
_IGNORED_NOTE = " Files that .gitignore leaves out were not looked at: include_ignored does."


class ListFilesInput(Input):
    directory: _DIRECTORY = "."
    recursive: bool = Field(default=False, description="Also all directories below, except what .gitignore leaves out")
    glob: _GLOB | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    include_ignored: bool = _INCLUDE_IGNORED


class ListFiles(InputTool[ListFilesInput]):
    name = "list_files"
    description = (
        "List files, sorted, as paths from the workspace's root. Not recursive: one directory with all its entries, "
        "directories ending in '/', symbolic links in '@'. Recursive or with a glob: files only."
    )
    subject_fields = ("directory", "glob")
    input_model = ListFilesInput

    def __init__(self, workspace: Workspace, searches: asyncio.Semaphore) -> None:
        self._workspace = workspace
        self._searches = searches

    async def execute(self, arguments: ListFilesInput) -> Outcome:
        directory = self._workspace.locate(arguments.directory)
        if not self._workspace.is_directory(directory):
            raise ToolError(f"{joined(directory)!r} is a file: name a directory, or read it with read_file")
        if arguments.recursive or arguments.glob:
            return await self._files(arguments, directory)
        # In a thread: how many entries there are shows only while they are read.
        listing = await asyncio.to_thread(self._workspace.listing, directory, limit=arguments.limit)
        prefix = "" if not directory else f"{joined(directory)}/"
        return _listed([prefix + name for name in listing.names], listing.left_out, complete=True)

    async def _files(self, arguments: ListFilesInput, directory: Parts) -> Outcome:
        glob = Glob.parse(arguments.glob) if arguments.glob else None
        deep = arguments.recursive or (arguments.glob is not None and "/" in arguments.glob)
        scope = Scope(directory, glob, depth=None if deep else 1)
        names = Names(scope.wants, arguments.limit)
        depth = [] if deep else [f"--max-depth={len(directory) + 1}"]
        async with self._searches:
            ended = await ripgrep(
                ["--files", *depth],
                root=self._workspace.root,
                sink=names.take,
                rules=scope.rules(),
                include_ignored=arguments.include_ignored,
            )
        return _listed(names.kept, names.left_out, complete=ended.complete)


def _listed(names: list[str], left_out: int, *, complete: bool) -> Outcome:
    if not names:
        return Outcome("No files." if complete else _STOPPED)
    text = clipped("\n".join(map(visible_line, names)))
    return Outcome(text + _left_out(left_out, "entries", complete=complete))


def _left_out(count: int, what: str, *, complete: bool) -> str:
    if count == 0 and complete:
        return ""
    return f"\n[{'' if complete else 'at least '}{count:,} more {what} left out]"


class SearchCodeInput(Input):
    pattern: Annotated[Text, Field(min_length=1, max_length=1_000, description=_PATTERN)]
    path: FilePath = Field(default=".", description="File or directory to search in")
    glob: _GLOB | None = None
    ignore_case: bool = False
    context: Annotated[int, Field(ge=0, le=10, description="Lines to show around each match")] = 0
    max_results: Annotated[int, Field(ge=1, le=1_000)] = 200
    include_ignored: bool = _INCLUDE_IGNORED


class SearchCode(InputTool[SearchCodeInput]):
    name = "search_code"
    description = (
        "Search text files line by line with a regular expression. Matches come as path:line:text, lines around them "
        "as path-line-text. Binary files, and files over 10 MB unless path names them, are not searched."
    )
    subject_fields = ("pattern", "path")
    input_model = SearchCodeInput

    def __init__(self, workspace: Workspace, searches: asyncio.Semaphore) -> None:
        self._workspace = workspace
        self._searches = searches

    async def execute(self, arguments: SearchCodeInput) -> Outcome:
        path = self._workspace.locate(arguments.path)
        async with self._searches:
            if self._workspace.is_directory(path):
                return await self._search_directory(arguments, path)
            return await self._search_file(arguments, path)

    async def _search_directory(self, arguments: SearchCodeInput, directory: Parts) -> Outcome:
        scope = Scope(directory, Glob.parse(arguments.glob) if arguments.glob else None)
        matches = Matches(scope.wants, arguments.max_results)
        ended = await ripgrep(
            _options(arguments),
            root=self._workspace.root,
            sink=matches.take,
            rules=scope.rules(),
            include_ignored=arguments.include_ignored,
        )
        return _found(matches, ended, "" if arguments.include_ignored else _IGNORED_NOTE)

    async def _search_file(self, arguments: SearchCodeInput, path: Parts) -> Outcome:
        matches = Matches(lambda _: True, arguments.max_results, label=joined(path))
        # ripgrep reads from the descriptor, so what was checked is what is searched.
        with self._workspace.opened(path) as file:
            if (size := os.fstat(file).st_size) > _MAX_SEARCHED_BYTES:
                raise ToolError(f"{joined(path)!r} has {size:,} bytes, too many to search: work without it")
            ended = await ripgrep(_options(arguments), root=self._workspace.root, sink=matches.take, file=file)
        return _found(matches, ended, "")


def _options(arguments: SearchCodeInput) -> list[str]:
    return [
        *("--line-number", "--with-filename", "--no-heading", "--no-context-separator"),
        *("--max-columns=500", "--max-columns-preview", "--max-filesize=10M"),
        *("--regex-size-limit=10M", "--dfa-size-limit=10M", f"--context={arguments.context}"),
        "--ignore-case" if arguments.ignore_case else "--case-sensitive",
        f"--regexp={_with_plain_digits(arguments.pattern)}",
    ]


def _with_plain_digits(pattern: str) -> str:
    r"""The pattern with `\d` as 0 to 9, also in a class, where ripgrep takes one within another.

    As Unicode has it, it is a table of 70 ranges: to compile that takes longer than most searches.
    """
    return _ESCAPE.sub(lambda found: _PLAIN_DIGITS.get(found[0], found[0]), pattern)


def _found(matches: Matches, ended: Ended, note: str) -> Outcome:
    if ended.stderr:
        raise ToolError(f"The pattern cannot be searched for: {ended.stderr.removeprefix('rg: ')}")
    text = matches.text()
    if not text:
        return Outcome(f"No matches.{note}" if ended.complete else _STOPPED)
    return Outcome(text + _left_out(matches.left_out, "matches", complete=ended.complete))
