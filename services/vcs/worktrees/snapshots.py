"""A worktree as a patch against its base, staged in an index that is thrown away. Changes nothing a caller can see."""

import asyncio
import os
import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.vcs.errors import GitError, GitOutputTooLargeError, PatchTooLargeError
from services.vcs.git.diffstat import GITLINK_MODE, LINK_MODE, FileChange, parse_diffstat
from services.vcs.git.runner import Git, Place
from services.vcs.git.trees import scratch_index
from services.vcs.worktrees import lfs
from services.vcs.worktrees.nested import add_with_nested_repositories
from services.vcs.worktrees.weights import heaviest

STAGE_TIMEOUT: Final = timedelta(minutes=5)
# A message holds 64 MiB, the patch and some words beside it.
MAX_PATCH_BYTES: Final = 63 * 1024 * 1024
# The longest target that Linux takes for a symbolic link.
_MAX_LINK_BYTES: Final = 4095
# Beside the index: touched once the file system's clock has moved on since the checkout.
TICK: Final = "tick"
# Beside it too: the index that the last snapshot was staged in.
STAGED: Final = "staged"
_NO_COMMIT_IN_NESTED: Final = "does not have a commit checked out"

# Also what lies outside of a sparse worktree's folder, where it is there.
_ADD: Final = ("add", "--all", "--sparse", "--", ".")
_SAME_EVERYWHERE: Final = ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=none")
# What every diff here is read with. Without renames: a rename's patch applies only where its source is still as it was,
# to no gain.
LIST_CHANGES: Final = (*_SAME_EVERYWHERE, "--raw", "--numstat", "-M", "--no-abbrev", "-z")
PRINT_PATCH: Final = (*_SAME_EVERYWHERE, "-p", "--binary", "--full-index", "--no-renames")
_STAGED: Final = ("diff-index", "--cached")
# A file outside of a sparse worktree's folder counts while it is there; the index must not remember that it was.
_AS_RECORDED: Final = ("-c", "sparse.expectFilesOutsideOfPatterns=true")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``patch``: `git diff --binary` without renames, empty where nothing changed."""

    patch: bytes
    files: tuple[FileChange, ...]


async def take_snapshot(git: Git, place: Place, base_sha: str) -> Snapshot:
    """Stage everything that is not ignored and compare it with ``base_sha``.

    ``place``: the attempt's repository, its worktree and the index that the checkout wrote (read only). Raises
    ``PatchTooLargeError``, ``GitError``.
    """
    await _settle(git, place)
    with scratch_index(place) as scratch:
        snapshot, _ = await _snapshot(git, place, scratch, base_sha, _no_tree)
        assert scratch.index is not None
        scratch.index.replace(place.git_dir / STAGED)
        return snapshot


async def take_snapshot_and_tree(git: Git, place: Place, base_sha: str) -> tuple[Snapshot, str]:
    """The same, with the tree of what was staged: the last look at a worktree, so nothing is made ready for more."""
    with scratch_index(place) as scratch:
        return await _snapshot(git, place, scratch, base_sha, _tree)


async def staged_tree(git: Git, place: Place, base_sha: str) -> str:
    """The tree of a snapshot, without its patch. Raises ``GitError``."""
    with scratch_index(place) as scratch:
        await stage(git, place, scratch, base_sha)
        return await _tree(git, scratch)


async def _snapshot(
    git: Git, place: Place, scratch: Place, base_sha: str, tree: Callable[[Git, Place], Awaitable[str]]
) -> tuple[Snapshot, str]:
    """A run waits for this at each turn that writes: what is mostly right is worked out beside what tells if it is."""
    if await _added(git, place, scratch):
        reading = (_changes(git, scratch, base_sha), _patch(git, scratch, base_sha), tree(git, scratch))
        files, patch, sha = await asyncio.gather(*reading)
        if not _has_nested(files) and not _misread(place, files) and not _moved_submodules(files):
            return Snapshot(patch, files), sha
    files = await stage(git, place, scratch, base_sha)
    return Snapshot(await _patch(git, scratch, base_sha), files), await tree(git, scratch)


async def stage(git: Git, place: Place, scratch: Place, base_sha: str) -> tuple[FileChange, ...]:
    """Stage everything that is not ignored in ``scratch``, and say what differs from ``base_sha``."""
    await _settle(git, place)
    files = await _add_all(git, place, scratch, base_sha)
    lines = [_index_line(GITLINK_MODE, file.old_blob, file.path) for file in _moved_submodules(files)]
    lines += await _links_as_files(git, scratch, _misread(place, files))
    if not lines:
        return files
    arguments = ("update-index", "-z", "--index-info")
    await git.run(*arguments, place=scratch, stdin=b"".join(lines), timeout=STAGE_TIMEOUT)
    return await _changes(git, scratch, base_sha)


async def _add_all(git: Git, place: Place, scratch: Place, base_sha: str) -> tuple[FileChange, ...]:
    """Stage the worktree; a repository that was made inside of it is taken for the plain folder it was meant as.

    Git would store only a pointer to such a repository's commit, or refuse to stage anything where it has none.
    """
    if await _added(git, place, scratch):
        files = await _changes(git, scratch, base_sha)
        if not _has_nested(files):
            return files
    await _begin(git, place, scratch)
    await add_with_nested_repositories(git, scratch)
    return await _changes(git, scratch, base_sha)


async def _added(git: Git, place: Place, scratch: Place) -> bool:
    """Stage the worktree as Git does; False where a repository without a commit stands inside of it."""
    await _begin(git, place, scratch)
    try:
        await git.run(*_ADD, place=scratch, timeout=STAGE_TIMEOUT)
    except GitError as error:
        if _NO_COMMIT_IN_NESTED not in error.git_message:
            raise
        return False
    return True


def _has_nested(files: Sequence[FileChange]) -> bool:
    return any(file.new_mode == GITLINK_MODE != file.old_mode for file in files)


def _misread(place: Place, files: Sequence[FileChange]) -> list[FileChange]:
    """Those that Git takes for links and that lie there as files."""
    return [file for file in files if file.new_mode == LINK_MODE and _is_regular(place, file.path)]


def _moved_submodules(files: Sequence[FileChange]) -> list[FileChange]:
    """Those in whose folder somebody made a repository: its commits are in no remote, so nothing may point to them."""
    return [file for file in files if file.old_mode == file.new_mode == GITLINK_MODE]


async def _links_as_files(git: Git, scratch: Place, misread: list[FileChange]) -> list[bytes]:
    """Index lines that turn links that were overwritten with a file's text into files.

    With `core.symlinks=false` a link lies in the worktree as a file that holds its target, and Git takes whatever is
    written there for a target. No target has a line end, and hardly a file has none.
    """
    lines = []
    for file in misread:
        content = await git.run("cat-file", "blob", file.new_blob, place=scratch, timeout=STAGE_TIMEOUT)
        if b"\n" in content or not 0 < len(content) <= _MAX_LINK_BYTES:
            lines.append(_index_line("100644", file.new_blob, file.path))
    return lines


def _index_line(mode: str, blob: str, path: bytes) -> bytes:
    return f"{mode} {blob}\t".encode("ascii") + path + b"\0"


async def _changes(git: Git, scratch: Place, base_sha: str) -> tuple[FileChange, ...]:
    return parse_diffstat(await git.run(*_STAGED, *LIST_CHANGES, base_sha, place=scratch, timeout=STAGE_TIMEOUT))


async def _patch(git: Git, scratch: Place, base_sha: str) -> bytes:
    arguments = (*_STAGED, *PRINT_PATCH, base_sha)
    try:
        return await git.run(*arguments, place=scratch, timeout=STAGE_TIMEOUT, max_output_bytes=MAX_PATCH_BYTES)
    except GitOutputTooLargeError as error:
        largest = await asyncio.to_thread(_heaviest, scratch, await _changes(git, scratch, base_sha))
        words = f"the changes are more than {MAX_PATCH_BYTES >> 20} MiB as a patch; the largest of them: {largest}"
        raise PatchTooLargeError(words) from error


def _heaviest(place: Place, files: Sequence[FileChange]) -> str:
    """The largest of ``files``, in words. Blocks: there may be a hundred thousand."""
    assert place.work_tree is not None
    sizes = {}
    for path in (os.fsdecode(file.path) for file in files):
        with suppress(OSError):
            sizes[path] = (place.work_tree / path).lstat().st_size
    return heaviest(sizes)


async def _settle(git: Git, place: Place) -> None:
    """Let Git look once at the content of what was written in the second in which the checkout ended.

    Many builds of Git tell times apart by seconds: until this was done, each of these files could have been changed
    without a trace in what the index recorded, and is read again whenever the index is.
    """
    written = (place.git_dir / "index").stat().st_mtime_ns
    if written > (place.git_dir / TICK).stat().st_mtime_ns or _second(time.time_ns()) <= _second(written):
        return
    with scratch_index(place) as settled:
        assert settled.index is not None
        _copy_index(place, settled)
        arguments = (*_AS_RECORDED, "update-index", "-q", "--refresh", "--force-write-index")
        await git.run(*arguments, place=settled, timeout=STAGE_TIMEOUT, accept=(0, 1))
        if _second(settled.index.stat().st_mtime_ns) > _second(written):
            settled.index.rename(place.git_dir / "index")


async def _tree(git: Git, scratch: Place) -> str:
    return (await git.run("write-tree", place=scratch, timeout=STAGE_TIMEOUT)).decode("ascii").strip()


async def _no_tree(_git: Git, _scratch: Place) -> str:
    return ""


async def _begin(git: Git, place: Place, scratch: Place) -> None:
    _copy_index(place, scratch)
    await lfs.reveal_changed(git, place, scratch)


def _second(nanoseconds: int) -> int:
    return nanoseconds // 10**9


def _copy_index(place: Place, scratch: Place) -> None:
    """The copy is as old as the index, so that Git mistrusts in it what it mistrusts there."""
    assert scratch.index is not None
    shutil.copyfile(place.git_dir / "index", scratch.index)
    written = (place.git_dir / "index").stat().st_mtime_ns
    os.utime(scratch.index, ns=(written, written))


def _is_regular(place: Place, path: bytes) -> bool:
    assert place.work_tree is not None
    try:
        return stat.S_ISREG((place.work_tree / os.fsdecode(path)).lstat().st_mode)
    except OSError:
        return False
