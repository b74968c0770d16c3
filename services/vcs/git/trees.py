"""Patches, trees and commits as pure Git objects, by way of an index of their own. Never looks at a worktree."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import GitError, MetadataRefusedError, PatchRefusedError
from services.vcs.git.runner import Git, Place

# In an attempt's repository, where its checkout was of the base alone: the index that it wrote.
BASE_INDEX: Final = "index.base"
TREE_TIMEOUT: Final = timedelta(minutes=5)
# Git silently drops these from names, so that what was asked and what was committed would differ.
_UNFIT_IN_IDENTITY: Final = re.compile(r"[\x00-\x1f\x7f<>]")
_LATEST: Final = 2**40


@dataclass(frozen=True, slots=True)
class CommitMetadata:
    """Everything besides tree and parent that a commit's SHA depends on. ``time``: seconds since the epoch, UTC."""

    author_name: str
    author_email: str
    time: int
    message: str

    def __post_init__(self) -> None:
        for field, value in (("author name", self.author_name), ("author e-mail", self.author_email)):
            if not value.strip(" .,:;\"'") or _UNFIT_IN_IDENTITY.search(value):
                raise MetadataRefusedError(f"the {field} {value[:100]!a} is empty or holds < > or control characters")
        if not 0 <= self.time < _LATEST:
            raise MetadataRefusedError(f"the commit time {self.time} is out of range; send seconds since the epoch")
        if not self.message.strip() or "\0" in self.message:
            raise MetadataRefusedError("the commit message is empty or holds a NUL character; send some text")


@contextlib.contextmanager
def scratch_index(place: Place) -> Iterator[Place]:
    """``place`` with an index that is thrown away (and not there yet)."""
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=place.git_dir) as folder:
        yield replace(place, index=Path(folder) / "index")


async def tree_of_patch(git: Git, place: Place, base_sha: str, patch: bytes) -> str:
    """The SHA of the tree that ``patch`` (`git diff --binary`) makes of ``base_sha``.

    Blob by blob, past every attribute and conversion. Raises ``PatchRefusedError``, ``GitError``.
    """
    with scratch_index(replace(place, work_tree=None)) as scratch:
        await read_base(git, scratch, base_sha)
        return await patched_tree(git, scratch, base_sha, patch)


async def read_base(git: Git, scratch: Place, base_sha: str) -> None:
    """``read_tree`` of the commit that an attempt began from, or of any where ``scratch`` is a mirror's."""
    assert scratch.index is not None
    try:
        # Git writes an index anew and puts it in place of the old one: the file itself is never changed.
        scratch.index.hardlink_to(scratch.git_dir / BASE_INDEX)
    except FileNotFoundError:
        await read_tree(git, scratch, base_sha)


async def read_tree(git: Git, scratch: Place, sha: str) -> None:
    await git.run("read-tree", sha, place=scratch, timeout=TREE_TIMEOUT)


async def patched_tree(git: Git, scratch: Place, base_sha: str, patch: bytes) -> str:
    """The second half of ``tree_of_patch``, in an index that ``base_sha`` was read into."""
    arguments = ("apply", "--cached", "--whitespace=nowarn", "-")
    try:
        await git.run(*arguments, place=scratch, stdin=patch, timeout=TREE_TIMEOUT)
    except GitError as error:
        words = f"the patch does not apply to {base_sha}; it was made against another base or cut short"
        raise PatchRefusedError(words, git_message=error.git_message) from error
    return _sha(await git.run("write-tree", place=scratch, timeout=TREE_TIMEOUT))


async def tree_of_commit(git: Git, place: Place, sha: str) -> str:
    """The SHA of the tree of a commit. Raises ``GitError``."""
    return _sha(await git.run("rev-parse", "--verify", f"{sha}^{{tree}}", place=place, timeout=TREE_TIMEOUT))


async def commit_tree(git: Git, place: Place, tree: str, parent: str, metadata: CommitMetadata) -> str:
    """The SHA of the commit, the same wherever and whenever it is made again."""
    date = f"@{metadata.time} +0000"
    variables = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", metadata.author_name), ("EMAIL", metadata.author_email), ("DATE", date))
    }
    message = metadata.message.encode("utf-8", "replace")
    arguments = ("commit-tree", tree, "-p", parent, "-F", "-")
    return _sha(await git.run(*arguments, place=place, stdin=message, variables=variables, timeout=TREE_TIMEOUT))


def _sha(output: bytes) -> str:
    return output.decode("ascii").strip()
