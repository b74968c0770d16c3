"""The workspace: what may be read and changed beneath one root, and what has been read of which version.

Blocks, by design: see the comment below for what may run on the event loop.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader, FileIO
from pathlib import Path, PurePosixPath
from typing import Literal

from services.agent.workspace.beneath import Beneath
from services.agent.workspace.errors import (
    MissingError,
    NotTextError,
    PathRefusedError,
    StaleReadError,
    WorkspaceError,
    in_words,
)
from services.agent.workspace.paths import Parts, is_git_name, joined, parse
from services.agent.workspace.reading import EXCERPT_BYTES, Excerpt, decoded, lines_of, scan_lines

# A read of up to 256 KB of a cached file takes 0.03-1.2 ms, nearly all of it decoding and hashing that hold the
# interpreter's lock in a thread just as well; a hop through the thread pool adds 0.08 ms and, with hundreds of runs, a
# queue. So callers run these methods on the event loop, except where `is_slow` or a docstring says that one may take
# longer. Writes are bounded to 1 MB and always run on the loop: no cancellation can fall into the middle of one, and
# none can land after its run was told to stop.

WHOLE_BYTES = 1024 * 1024
"""The largest file that can be changed; larger ones can be read by ranges of lines."""
_MOST_BEFORE_BYTES = 64 * 1024
_DELETE = "\x7f"


@dataclass(frozen=True, slots=True)
class FileChange:
    """``before``: what a modified file held; None where that is not known, or too much to be carried about."""

    path: str
    change: Literal["added", "modified", "deleted"]
    before: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Listing:
    """Names of one directory, sorted, ``/`` after directories and ``@`` after symbolic links."""

    names: list[str]
    left_out: int


class Workspace:
    """All files beneath ``root``, which must exist. One run uses it at a time; one writer at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve(strict=True)
        self._spellings = (PurePosixPath(self.root), PurePosixPath(root.absolute()))
        self._files = Beneath(self.root)
        self._versions: dict[str, str] = {}

    def read_versions(self) -> dict[str, str]:
        """Path to content hash of everything that was read or written, for a checkpoint."""
        return dict(self._versions)

    def restore_read_versions(self, versions: Mapping[str, str]) -> None:
        """Take over what ``read_versions`` gave, in place of what is known now."""
        self._versions = dict(versions)

    def locate(self, raw: str) -> Parts:
        """The components of a path as a model writes it. Raises ``PathRefusedError``; touches no file."""
        return parse(raw, self._spellings)

    def is_slow(self, parts: Parts) -> bool:
        """Whether reading this file may take over a millisecond. Raises what opening it raises."""
        with self._files.file(parts) as file:
            return _size(file) > EXCERPT_BYTES

    def is_directory(self, parts: Parts) -> bool:
        """Raises ``MissingError``, ``PathRefusedError`` (a link, or neither a directory nor a regular file)."""
        if not parts:
            return True
        try:
            with self._files.directory(parts):
                return True
        except PathRefusedError:
            with self._files.file(parts):
                return False

    @contextmanager
    def opened(self, parts: Parts) -> Iterator[int]:
        """A descriptor of a regular file, for another program to read from."""
        with self._files.file(parts) as file:
            yield file.fileno()

    def listing(self, parts: Parts, *, limit: int) -> Listing:
        """The entries of one directory but ``.git``; slow where there are very many."""
        with (
            self._files.directory(parts) as directory,
            in_words(joined(parts)),
            os.scandir(directory) as entries,
        ):
            names = sorted(entry.name + _mark(entry) for entry in entries if not is_git_name(entry.name))
        return Listing(names[:limit], max(0, len(names) - limit))

    def read(self, parts: Parts, *, first: int = 1, last: int | None = None) -> Excerpt:
        """Lines ``first`` to ``last`` of a text file, at most 256 KB; remembers the version that was read.

        Raises ``NotTextError`` also for a larger file without ``last``.
        """
        path = joined(parts)
        with self._files.file(parts) as file:
            size = _size(file)
            if size > EXCERPT_BYTES and last is None:
                raise NotTextError(f"{path!r} has {size:,} bytes, too many at once: give start_line and end_line")
            if size > WHOLE_BYTES and last is not None:
                with BufferedReader(file) as buffered:
                    return scan_lines(buffered, path, size=size, first=first, last=last)
            content = _read_whole(file, path)
        excerpt = lines_of(decoded(content, path), first=first, last=last)
        self._remember(parts, content)
        return excerpt

    def write(self, parts: Parts, text: str) -> FileChange | None:
        """Make ``text`` the file's whole content; ``None`` where it is already.

        Raises ``StaleReadError``: it exists and was not read as it is now. The mode of an existing file is kept.
        """
        new = _encoded(text, joined(parts))
        try:
            old, mode = self._current(parts)
        except MissingError:
            self._require_plain_name(parts)
            self._files.replace(parts, new)
            self._remember(parts, new)
            return FileChange(joined(parts), "added")
        if old == new:
            self._remember(parts, new)
            return None
        self._require_fresh(parts, old)
        return self._put(parts, new, mode, before=old)

    def edit(self, parts: Parts, change: Callable[[str], str]) -> FileChange:
        """Put ``change(text)`` in place of the file's text; what ``change`` raises leaves the file as it was."""
        old, mode = self._current(parts)
        self._require_fresh(parts, old)
        new = _encoded(change(decoded(old, joined(parts))), joined(parts))
        return self._put(parts, new, mode, before=old)

    def delete(self, parts: Parts) -> FileChange:
        """Remove a file or a symbolic link."""
        self._files.unlink(parts)
        self._versions.pop(joined(parts), None)
        return FileChange(joined(parts), "deleted")

    def move(self, old: Parts, new: Parts) -> tuple[FileChange, FileChange]:
        """Rename a regular file; what was read of it goes with it. Raises ``PathRefusedError``: ``new`` exists."""
        self._require_plain_name(new)
        self._files.rename(old, new)
        version = self._versions.pop(joined(old), None)
        if version is not None:
            self._versions[joined(new)] = version
        return FileChange(joined(old), "deleted"), FileChange(joined(new), "added")

    def _current(self, parts: Parts) -> tuple[bytes, int]:
        with self._files.file(parts) as file:
            return _read_whole(file, joined(parts)), os.fstat(file.fileno()).st_mode

    def _put(self, parts: Parts, content: bytes, mode: int, *, before: bytes) -> FileChange:
        self._files.replace(parts, content, mode=mode)
        self._remember(parts, content)
        return FileChange(joined(parts), "modified", before if len(before) <= _MOST_BEFORE_BYTES else None)

    def _remember(self, parts: Parts, content: bytes) -> None:
        self._versions[joined(parts)] = _version(content)

    def _require_fresh(self, parts: Parts, content: bytes) -> None:
        known = self._versions.get(joined(parts))
        if known is None:
            raise StaleReadError(f"{joined(parts)!r} exists but was not read: call read_file on it first")
        if known != _version(content):
            raise StaleReadError(
                f"{joined(parts)!r} changed since it was read: call read_file again, then make the change"
            )

    @staticmethod
    def _require_plain_name(parts: Parts) -> None:
        """A new name is shown in terminals and diffs for ever: it must not carry escapes or line breaks."""
        if any(letter < " " or letter == _DELETE for letter in joined(parts)):
            raise PathRefusedError(f"{joined(parts)!r} holds control characters: give the new file a plain name")


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def _read_whole(file: FileIO, path: str) -> bytes:
    # One byte more than allowed tells a file that grew, or whose size is not what the status says.
    pieces: list[bytes] = []
    left = WHOLE_BYTES + 1
    while left > 0 and (piece := file.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise NotTextError(
            f"{path!r} has {_size(file):,} bytes, more than the {WHOLE_BYTES:,} that can be changed: "
            "read ranges of its lines, and change other files"
        )
    return b"".join(pieces)


def _encoded(text: str, path: str) -> bytes:
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise NotTextError(f"the new text of {path!r} holds a lone surrogate: take it out") from error
    if b"\0" in content:
        raise NotTextError(f"the new text of {path!r} holds a NUL character: take it out")
    if len(content) > WHOLE_BYTES:
        raise WorkspaceError(
            f"the new text of {path!r} has {len(content):,} bytes: a file may have at most {WHOLE_BYTES:,}; split it"
        )
    return content


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mark(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "@"
    return "/" if entry.is_dir(follow_symlinks=False) else ""
