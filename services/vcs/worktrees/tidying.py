"""Takes out of a worktree whatever an agent put there or touched. Follows no link, reads no content, runs nothing."""

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.vcs.git.diffstat import GITLINK_MODE

# More than this are not sorted out: checking out afresh is quicker then.
MOST_STRAYS: Final = 50_000
_DEEPEST: Final = 200
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_Nature = tuple[int, int, int, int, tuple[tuple[str, bytes], ...]]


class UntidyError(Exception):
    """A worktree holds what is not worth sorting out."""


def tidy(tree: Path, out: Path, listed: bytes, *, given_at_ns: int, fresh: Path) -> None:
    """Leave beneath ``tree`` nothing but folders and files of ``listed`` that nobody has touched since ``given_at_ns``.

    Everything else is moved to ``out``, an empty folder on the same volume, as it is: a folder with all that is in it.
    ``listed``: of `git ls-files --stage -z`. ``given_at_ns``: a time of the file system, later than the last write of
    the checkout and not later than the agent's first. ``fresh``: a folder as a checkout makes them.

    What tells is a file's change time, in nanoseconds: nobody can set it, and every write, link, rename and change of
    mode, owner or attributes moves it on. Where the file lies is not in it (a folder above may have been renamed): that
    is for Git to see, which compares the inode. Folders must be as ``fresh`` is. Raises ``UntidyError``, ``OSError``.
    """
    fresh_fd, out_fd, tree_fd = (os.open(folder, _FOLDER) for folder in (fresh, out, tree))
    try:
        _Tidying(_folders(listed), given_at_ns, _nature(fresh_fd), out_fd).folder(tree_fd, "", 0)
    finally:
        for descriptor in (fresh_fd, out_fd, tree_fd):
            os.close(descriptor)


@dataclass
class _Tidying:
    """``folders``: names of files, by the path of the folder they are in, which is empty or ends in a slash."""

    folders: Mapping[str, set[str]]
    given_at_ns: int
    fresh: _Nature
    out: int
    moved: int = 0

    def folder(self, descriptor: int, path: str, depth: int) -> None:
        if depth > _DEEPEST or _nature(descriptor) != self.fresh:
            raise UntidyError(f"the folder {path!a} is not as a checkout makes it")
        files, strays, inner = self.folders[path], [], []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and f"{path}{entry.name}/" in self.folders:
                    inner.append(entry.name)
                elif entry.name not in files or not self._is_untouched(entry):
                    strays.append(entry.name)
                    if self.moved + len(strays) > MOST_STRAYS:
                        raise UntidyError(f"there are more than {MOST_STRAYS} files to be removed")
        self._move(descriptor, strays)
        for name in inner:
            below = os.open(name, _FOLDER, dir_fd=descriptor)
            try:
                self.folder(below, f"{path}{name}/", depth + 1)
            finally:
                os.close(below)

    def _is_untouched(self, entry: os.DirEntry[str]) -> bool:
        status = entry.stat(follow_symlinks=False)
        return (
            status.st_ctime_ns < self.given_at_ns
            and stat.S_ISREG(status.st_mode)
            and status.st_nlink == 1
            and status.st_dev == self.fresh[0]
        )

    def _move(self, descriptor: int, names: Iterable[str]) -> None:
        for name in names:
            os.rename(name, str(self.moved), src_dir_fd=descriptor, dst_dir_fd=self.out)
            self.moved += 1


def _folders(listed: bytes) -> dict[str, set[str]]:
    folders: dict[str, set[str]] = {"": set()}
    for line in os.fsdecode(listed).split("\0")[:-1]:
        head, _, path = line.partition("\t")
        if head.startswith(GITLINK_MODE):
            raise UntidyError("it has submodules")
        above, slash, name = path.rpartition("/")
        folder = above + slash
        if folder not in folders:
            _add(folders, above)
        folders[folder].add(name)
    return folders


def _add(folders: dict[str, set[str]], path: str) -> None:
    """The folder ``path``, and those it is in."""
    while path and f"{path}/" not in folders:
        folders[f"{path}/"] = set()
        path = path.rpartition("/")[0]


def _nature(descriptor: int) -> _Nature:
    """All that a folder is but its name, its entries and its times."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_mode, status.st_uid, status.st_gid, _attributes(descriptor)


def _attributes(descriptor: int) -> tuple[tuple[str, bytes], ...]:
    """Extended attributes, among which are the access lists."""
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return ()
    return tuple((name, os.getxattr(descriptor, name)) for name in sorted(names))
