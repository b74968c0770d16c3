"""Sparse worktrees: one folder of a monorepo and the files on the way down to it. The index always holds everything."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import VcsError
from services.vcs.git.runner import Git, Place

# Part of a repository's `[core]`. Files that are there although they need not be are seen: that is Git's own default.
CONFIGURATION: Final = "\tsparseCheckout = true\n\tsparseCheckoutCone = true\n"
_TIMEOUT: Final = timedelta(minutes=5)
_PATTERNS: Final = "info/sparse-checkout"
_MAX_PATH_CHARACTERS: Final = 1_000
_SHOWN_CHARACTERS: Final = 100
_GLOB: Final = re.compile(r"[*?\[\]\\]")


class PathRefusedError(VcsError):
    """The path is not that of a folder of the repository."""

    exit_reason = "clone_failed"


def checked_path(path: str) -> str:
    """``path`` without the slashes at its end, if it can name a folder; raises ``PathRefusedError``."""
    if len(path) > _MAX_PATH_CHARACTERS:
        raise _refused(path, f"is longer than {_MAX_PATH_CHARACTERS} characters")
    if path.startswith("/"):
        raise _refused(path, "is absolute; write it from the root of the repository, without a slash before it")
    if path.startswith("-"):
        raise _refused(path, "begins with a dash and could be read as an option")
    if not path.isprintable() or _GLOB.search(path):
        raise _refused(path, "holds a control character, backslash or one of * ? [ ]; name exactly one folder")
    parts = path.rstrip("/").split("/") if path else []
    if any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts):
        raise _refused(path, "has an empty part, '.', '..' or '.git' in it; write the plain path")
    return "/".join(parts)


async def require_folder(git: Git, place: Place, sha: str, path: str) -> None:
    """Raises ``PathRefusedError`` where commit ``sha`` has no folder ``path``. ``place``: where the commit is."""
    arguments = ("cat-file", "-t", f"{sha}:{path}")
    kind = (await git.run(*arguments, place=place, timeout=_TIMEOUT, accept=(0, 128))).strip()
    if not kind or kind == b"commit":
        raise _refused(path, f"is not in commit {sha}; name a folder that exists there")
    if kind != b"tree":
        raise _refused(path, f"is a file in commit {sha}; name the folder that it is in")


def write_patterns(git_dir: Path, path: str) -> None:
    """In the form that Git calls a cone: the files of each folder on the way down, and all of the last one."""
    parts = path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    lines = ["/*", "!/*/", *(line for folder in above for line in (f"/{folder}/", f"!/{folder}/*/")), f"/{path}/"]
    (git_dir / _PATTERNS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def folder_of(place: Place) -> str:
    """The folder that the worktree was made for; empty where it is not sparse."""
    try:
        return (place.git_dir / _PATTERNS).read_text(encoding="utf-8").splitlines()[-1].strip("/")
    except FileNotFoundError:
        return ""


async def show_changes(git: Git, place: Place, base_sha: str, tree: str) -> None:
    """After a checkout of ``tree``: put files in the worktree that it changes outside of the folder.

    Whoever wrote them there finds them again, and sees what becomes of them.
    """
    folder = os.fsencode(folder_of(place))
    if not folder:
        return
    arguments = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--diff-filter=d", base_sha, tree)
    changed = (await git.run(*arguments, place=place, timeout=_TIMEOUT)).split(b"\0")[:-1]
    stdin = b"".join(path + b"\0" for path in changed if not _is_inside(path, folder))
    if stdin:
        for command in (("update-index", "--no-skip-worktree"), ("checkout-index", "-f", "-u")):
            await git.run(*command, "-z", "--stdin", place=place, stdin=stdin, timeout=_TIMEOUT)


def _is_inside(path: bytes, folder: bytes) -> bool:
    above, slash, _ = path.rpartition(b"/")
    return (folder + b"/").startswith(above + slash) or path.startswith(folder + b"/")


def _refused(path: str, words: str) -> PathRefusedError:
    shown = ascii(path if len(path) <= _SHOWN_CHARACTERS else path[:_SHOWN_CHARACTERS] + "...")
    return PathRefusedError(f"the path {shown} {words}")
