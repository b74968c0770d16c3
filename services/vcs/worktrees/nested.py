"""Stages the files of repositories that lie inside a worktree, as if they were plain folders."""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from services.vcs.git.runner import Git, Place

_TIMEOUT: Final = timedelta(minutes=5)


async def add_with_nested_repositories(git: Git, place: Place) -> None:
    """Stage everything that is not ignored, and what repositories inside the worktree hold except their `.git`."""
    assert place.work_tree is not None
    # What is gone makes room first: a repository may lie where a file was.
    await git.run("add", "--update", "--sparse", "--", ".", place=place, timeout=_TIMEOUT)
    listed = await git.run("ls-files", "-z", "--others", "--exclude-standard", place=place, timeout=_TIMEOUT)
    names = [name for name in listed.split(b"\0") if name]
    # Git lists a folder as one name only where it will not look inside.
    folders = [name.rstrip(b"/") for name in names if name.endswith(b"/")]
    inside = list(_files(os.fsencode(place.work_tree), folders))
    hidden = await _ignored(git, place, inside)
    paths = [name for name in (*names, *inside) if not name.endswith(b"/") and name not in hidden]
    stdin = b"".join(path + b"\0" for path in paths)
    await git.run("update-index", "--add", "-z", "--stdin", place=place, stdin=stdin, timeout=_TIMEOUT)


async def _ignored(git: Git, place: Place, paths: list[bytes]) -> set[bytes]:
    # Behind a "./" no name is read as a pattern with a meaning of its own.
    stdin = b"".join(b"./" + path + b"\0" for path in paths)
    arguments = ("check-ignore", "-z", "--stdin")
    output = await git.run(*arguments, place=place, stdin=stdin, timeout=_TIMEOUT, accept=(0, 1))
    return {path.removeprefix(b"./") for path in output.split(b"\0")}


def _files(root: bytes, folders: list[bytes]) -> Iterator[bytes]:
    """Paths of files and links beneath ``folders``, all relative to ``root``; links are not followed.

    Not recursive: an agent can nest folders deeply.
    """
    while folders:
        folder = folders.pop()
        with os.scandir(root + b"/" + folder) as entries:
            for entry in entries:
                path = folder + b"/" + entry.name
                if entry.name.lower() == b".git":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                    yield path
