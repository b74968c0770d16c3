"""File operations beneath one folder that no symbolic link can lead out of, at any moment.

Each component is opened relative to the one before with O_NOFOLLOW, so there is no check to race with. Bytes only.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from services.agent.workspace.errors import PathRefusedError, in_words
from services.agent.workspace.paths import Parts, joined

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that nobody writes to must not hang.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o777
NEW_FILE_MODE = 0o644


class Beneath:
    """The tree under ``root`` (an absolute, resolved path that the caller trusts)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def directory(self, parts: Parts, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the directory ``parts``; ``make`` creates what is missing on the way."""
        with in_words(joined(parts)):
            descriptor = os.open(self._root, _DIRECTORY)
        try:
            for name in parts:
                with in_words(joined(parts)):
                    inner = _enter(descriptor, name, make=make)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def file(self, parts: Parts) -> Iterator[FileIO]:
        """The regular file ``parts``, open for reading; anything else that has this name is refused."""
        parent, name = _split(parts)
        with self.directory(parent) as directory, in_words(joined(parts)):
            descriptor = os.open(name, _FILE, dir_fd=directory)
        try:
            _require_regular(os.fstat(descriptor), parts)
        except PathRefusedError:
            os.close(descriptor)
            raise
        with FileIO(descriptor, "r") as opened:
            yield opened

    def status(self, parts: Parts) -> os.stat_result:
        """What ``parts`` itself is, a symbolic link included. Raises ``MissingError``."""
        parent, name = _split(parts)
        with self.directory(parent) as directory, in_words(joined(parts)):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def replace(self, parts: Parts, content: bytes, *, mode: int = NEW_FILE_MODE) -> None:
        """Make ``parts`` a file of exactly ``content``, at once or not at all; missing directories are made.

        ``mode``: permission bits, used whatever the umask is. A link or directory of this name is refused.
        """
        parent, name = _split(parts)
        temporary = f".quarterdeck-{secrets.token_hex(8)}.tmp"
        with self.directory(parent, make=True) as directory, in_words(joined(parts)):
            _require_regular_or_missing(directory, parts)
            try:
                _write_new(directory, temporary, content, mode & _PERMISSIONS)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            finally:
                # After the rename there is nothing of this name; before it, nothing may stay behind.
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory)

    def unlink(self, parts: Parts) -> None:
        """Remove the file or symbolic link ``parts`` (never what a link points to)."""
        parent, name = _split(parts)
        with self.directory(parent) as directory, in_words(joined(parts)):
            os.unlink(name, dir_fd=directory)

    def rename(self, old: Parts, new: Parts) -> None:
        """Move the regular file ``old`` to ``new``, where nothing may be yet; missing directories are made."""
        old_parent, old_name = _split(old)
        new_parent, new_name = _split(new)
        with self.directory(old_parent) as source:
            with in_words(joined(old)):
                _require_regular(os.stat(old_name, dir_fd=source, follow_symlinks=False), old)
            with self.directory(new_parent, make=True) as target, in_words(joined(new)):
                if _lstat(target, new_name) is not None:
                    raise PathRefusedError(f"{joined(new)!r} exists already: delete it first or choose another name")
                os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)


def _enter(directory: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


def _write_new(directory: int, name: str, content: bytes, mode: int) -> None:
    descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
    with FileIO(descriptor, "w") as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fchmod(descriptor, mode)


def _split(parts: Parts) -> tuple[Parts, str]:
    if not parts:
        raise PathRefusedError("'.' is the workspace itself, a directory: name a file in it")
    return parts[:-1], parts[-1]


def _lstat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _require_regular_or_missing(directory: int, parts: Parts) -> None:
    status = _lstat(directory, parts[-1])
    if status is not None:
        _require_regular(status, parts)


def _require_regular(status: os.stat_result, parts: Parts) -> None:
    """Raises ``PathRefusedError`` for whatever is not a regular file."""
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise PathRefusedError(f"{joined(parts)!r} is a directory: name a file (list_files shows what is in it)")
    if stat.S_ISLNK(status.st_mode):
        raise PathRefusedError(
            f"{joined(parts)!r} is a symbolic link, and links are never followed: name the file itself"
        )
    raise PathRefusedError(f"{joined(parts)!r} is a pipe, socket or device, not a regular file: leave it as it is")
