"""The repository of runs that have none: one commit without files, the same on every node. Asks no remote."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError
from services.vcs.git.repositories import Repository
from services.vcs.git.runner import Git, Place
from services.vcs.mirrors.files import remove_tree, replace_mirror, temporary_mirror
from services.vcs.mirrors.salvage import carry_over, kept_refs

# No remote's mirror has such a name: theirs end in a hash.
EMPTY: Final = Repository(url="", key="", folder="empty")
# What a checkpoint's patch is against, on whichever node it is restored: neither these bytes nor the SHA may change.
ROOT_SHA: Final = "043f5370ac704c2f9d11169298ad2417ab71e9aa"
_TREE_SHA: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_NOBODY: Final = "Quarterdeck <quarterdeck@users.noreply.invalid> 0 +0000"
_ROOT: Final = f"tree {_TREE_SHA}\nauthor {_NOBODY}\ncommitter {_NOBODY}\n\nBegin with nothing\n".encode("ascii")
_OBJECTS: Final = (("tree", b"", _TREE_SHA), ("commit", _ROOT, ROOT_SHA))
_QUICK: Final = timedelta(seconds=30)


async def make_empty(git: Git, git_dir: Path) -> None:
    """Make the repository in ``git_dir``, or anew, with all that is pinned or rescued in it.

    The caller holds its lock. Raises ``CloneFailedError``.
    """
    try:
        await _make(git, git_dir)
    except (GitError, GitTimeoutError) as error:
        words = "the repository of runs without one could not be made on this node"
        told = error.git_message or error.message
        raise CloneFailedError(words, git_message=told, retryable=error.retryable) from error


async def _make(git: Git, git_dir: Path) -> None:
    aside = fresh = temporary_mirror(git_dir)
    try:
        arguments = ("init", "--quiet", "--bare", "--template=", "--object-format=sha1", "--", str(fresh))
        await git.run(*arguments, timeout=_QUICK)
        for kind, content, sha in _OBJECTS:
            await _write(git, Place(fresh), kind, content, sha)
        await carry_over(git, git_dir, Place(fresh), await asyncio.to_thread(kept_refs, git_dir))
        aside = await asyncio.to_thread(replace_mirror, fresh, git_dir)
        # Once more: what was pinned until the old one was out of the way.
        await carry_over(git, aside, Place(git_dir), await asyncio.to_thread(kept_refs, aside))
    finally:
        await remove_tree(fresh)
        await remove_tree(aside)


async def _write(git: Git, place: Place, kind: str, content: bytes, sha: str) -> None:
    written = await git.run("hash-object", "-w", "--stdin", "-t", kind, place=place, stdin=content, timeout=_QUICK)
    if written.decode("ascii").strip() != sha:
        raise GitError(f"Git gave the empty repository's {kind} another name than {sha}; please report it")
