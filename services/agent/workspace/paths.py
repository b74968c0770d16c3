"""Which paths may be named at all: pure text rules, decided before any file is touched."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import TypeAlias

from services.agent.workspace.errors import PathRefusedError

Parts: TypeAlias = tuple[str, ...]
"""A path's components beneath the root; the root itself is ``()``."""

MAX_PATH_CHARACTERS = 4_096
MAX_DEPTH = 64
"""Deeper trees defeat tools that recurse (Git, rg, rmtree); real repositories stay below 40."""

# Code points that HFS+ ignores in names, so that ".g\u200cit" is ".git" there; Git refuses the same ones.
_HFS_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
# NTFS drops trailing dots and spaces, reads ":" as a stream, "\\" as a separator, and knows a short name.
_GIT_NAME = re.compile(r"(\.git|git~1)[ .]*(:.*)?", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_git_name(name: str) -> bool:
    """Whether some file system takes ``name`` for ``.git`` (the rules of Git's own ``verify_path``)."""
    plain = _HFS_IGNORED.sub("", name).lower()
    return any(_GIT_NAME.fullmatch(piece) is not None for piece in plain.split("\\"))


def is_closed(parts: Parts) -> bool:
    """Whether ``parts`` are, or lie in, Git's metadata."""
    return any(is_git_name(name) for name in parts)


def joined(parts: Parts) -> str:
    """``parts`` as the text a model reads and writes; ``.`` for the root."""
    return "/".join(parts) or "."


def parse(raw: str, roots: Iterable[PurePosixPath]) -> Parts:
    """The components of ``raw`` beneath the root, which ``roots`` spell as absolute paths.

    Raises ``PathRefusedError``: an absolute path elsewhere, ``..``, NUL, lone surrogates, ``.git``, too long, too deep.
    """
    _check_text(raw)
    parts = _relative(raw, roots)
    if ".." in parts:
        raise PathRefusedError(f"{raw!r} holds '..': name the path from the workspace's root instead")
    if len(parts) > MAX_DEPTH:
        raise PathRefusedError(f"the path is {len(parts)} levels deep: use at most {MAX_DEPTH}")
    if is_closed(parts):
        raise PathRefusedError(f"{raw!r} lies in Git's own metadata, which is closed: work on the other files")
    return parts


def _check_text(raw: str) -> None:
    if len(raw) > MAX_PATH_CHARACTERS:
        raise PathRefusedError(
            f"the path has {len(raw)} characters: name one of at most {MAX_PATH_CHARACTERS} characters"
        )
    if "\0" in raw:
        raise PathRefusedError("the path holds a NUL character: take it out")
    if _SURROGATE.search(raw):
        raise PathRefusedError("the path holds a lone surrogate: name a path that is valid Unicode")


def _relative(raw: str, roots: Iterable[PurePosixPath]) -> Parts:
    if not raw.startswith("/"):
        return PurePosixPath(raw).parts
    # Exactly two leading slashes mean something else to POSIX, and to PurePosixPath.
    path = PurePosixPath("/" + raw.lstrip("/"))
    for root in roots:
        if path.is_relative_to(root):
            return path.relative_to(root).parts
    raise PathRefusedError(f"{raw!r} lies outside the workspace: name a path relative to its root")
