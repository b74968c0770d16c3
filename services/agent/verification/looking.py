"""Looks into a worktree without being led out of it: no links, bounded sizes. What is broken is not there."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import orjson

from services.agent.workspace.beneath import Beneath
from services.agent.workspace.errors import WorkspaceError

MAX_FILE_BYTES: Final = 256 * 1024
MAX_ENTRIES: Final = 2_000
"""Of one folder with all beneath it."""
MAX_DEPTH: Final = 8
_EXECUTABLE: Final = 0o100


class Looking:
    """Paths are relative to ``worktree``, with ``/`` between their parts."""

    def __init__(self, worktree: Path) -> None:
        self._files = Beneath(worktree)

    def has(self, path: str) -> bool:
        """Whether this is a regular file."""
        try:
            with self._files.file(tuple(path.split("/"))):
                return True
        except WorkspaceError:
            return False

    def is_executable(self, path: str) -> bool:
        try:
            with self._files.file(tuple(path.split("/"))) as file:
                return bool(os.fstat(file.fileno()).st_mode & _EXECUTABLE)
        except WorkspaceError:
            return False

    def text(self, path: str) -> str:
        """Of a file of at most 256 KiB, undecodable bytes replaced; empty where there is no such file."""
        try:
            with self._files.file(tuple(path.split("/"))) as file:
                content = file.read(MAX_FILE_BYTES + 1) or b""
        except (WorkspaceError, OSError):
            return ""
        return content.decode("utf-8", "replace").removeprefix("\ufeff") if len(content) <= MAX_FILE_BYTES else ""

    def lines(self, path: str) -> list[str]:
        return self.text(path).splitlines()

    def json(self, path: str) -> dict[str, Any]:
        """The object in this file; empty where there is none."""
        try:
            document = orjson.loads(self.text(path))
        except orjson.JSONDecodeError:
            return {}
        return document if isinstance(document, dict) else {}

    def any_file(self, folder: str, *patterns: str) -> bool:
        """Whether a file in ``folder`` (empty: the root), or beneath it, has a name like one of ``patterns``."""
        parts = tuple(folder.split("/")) if folder else ()
        names = self._beneath(parts) if folder else (name for name, is_folder in self._entries(parts) if not is_folder)
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

    def _beneath(self, folder: tuple[str, ...]) -> Iterator[str]:
        """Names of files, those of the upper folders first."""
        folders, looked_at = [folder], 0
        for parts in folders:
            for name, is_folder in self._entries(parts):
                looked_at += 1
                if looked_at > MAX_ENTRIES:
                    return
                if not is_folder:
                    yield name
                elif len(parts) < MAX_DEPTH:
                    folders.append((*parts, name))

    def _entries(self, parts: tuple[str, ...]) -> list[tuple[str, bool]]:
        """Name, and whether it is a folder, of what is a folder or a regular file, sorted."""
        try:
            with self._files.directory(parts) as directory, os.scandir(directory) as entries:
                found = [
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False)
                    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
                ]
        except (WorkspaceError, OSError):
            return []
        return sorted(found)
