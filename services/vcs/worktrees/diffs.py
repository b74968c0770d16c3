"""What one commit of a mirror changes against another. Looks at no worktree; of those, a checkpoint says it."""

import asyncio
import os
from datetime import timedelta
from typing import Final

from services.vcs.errors import GitOutputTooLargeError, PatchTooLargeError
from services.vcs.git.diffstat import parse_diffstat
from services.vcs.git.repositories import Repository, checked_sha
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.worktrees.snapshots import LIST_CHANGES, MAX_PATCH_BYTES, PRINT_PATCH, Snapshot

DIFF_TIMEOUT: Final = timedelta(minutes=5)
_COMPARE: Final = ("diff-tree", "-r")


async def between(git: Git, mirrors: Mirrors, repository: Repository, base_sha: str, head_sha: str) -> Snapshot:
    """Patch and files from ``base_sha`` to ``head_sha``, fetched where they are not here: full commit SHAs.

    Raises ``RefRefusedError``, ``CloneFailedError``, ``BusyError``, ``PatchTooLargeError``, ``GitError``.
    """
    for sha in (checked_sha(base_sha), checked_sha(head_sha)):
        await mirrors.fetch(repository, sha=sha)
    place = mirrors.place(repository)
    commits = (base_sha, head_sha)
    listed = await git.run(*_COMPARE, "-z", "--name-only", "--no-renames", *commits, place=place, timeout=DIFF_TIMEOUT)
    if paths := tuple(os.fsdecode(path) for path in listed.split(b"\0")[:-1]):
        for sha in commits:
            await mirrors.complete(repository, sha, paths=paths)
    try:
        files, patch = await asyncio.gather(
            git.run(*_COMPARE, *LIST_CHANGES, *commits, place=place, timeout=DIFF_TIMEOUT),
            git.run(
                *_COMPARE, *PRINT_PATCH, *commits, place=place, timeout=DIFF_TIMEOUT, max_output_bytes=MAX_PATCH_BYTES
            ),
        )
    except GitOutputTooLargeError as error:
        words = f"{base_sha} and {head_sha} differ by more than {MAX_PATCH_BYTES >> 20} MiB; compare them in a clone"
        raise PatchTooLargeError(words) from error
    return Snapshot(patch, parse_diffstat(files))
