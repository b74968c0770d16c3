"""What an attempt asks of its checkout, the repository it is made in, and how many are made at once. Runs no Git."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.vcs.worktrees import sparse

_SHA1_DIGITS: Final = 40
# More than this wait for one another in the file system.
_MAX_WORKERS: Final = 8
# Stronger than any attribute of the repository's own: files are checked out and staged byte for byte. Converted, a file
# whose attributes contradict what is stored would count as changed whenever Git looks at its content again.
_AS_STORED: Final = "* -text !eol -ident -filter !working-tree-encoding\n"


@dataclass(frozen=True, slots=True)
class CheckoutOptions:
    """``path``: this folder alone, and the files on the way down to it; empty: everything.

    ``lfs``: contents in place of Git LFS pointers. ``submodules``: their files too, for reading.
    """

    path: str = ""
    lfs: bool = False
    submodules: bool = False


EVERYTHING: Final = CheckoutOptions()


class CheckoutSlots:
    """As many checkouts at once as there are cores: more of them only take one another's disk and caches."""

    def __init__(self, cores: int | None = None) -> None:
        self._cores = cores or len(os.sched_getaffinity(0))
        self._free = asyncio.Semaphore(self._cores)
        self._taken = 0

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Yields how many processes the checkout may write files with: the cores that no other one uses."""
        async with self._free:
            self._taken += 1
            try:
                yield max(1, min(_MAX_WORKERS, self._cores // self._taken))
            finally:
                self._taken -= 1


def write_repository(git_dir: Path, mirror: Path, sha: str, *, path: str = "", workers: int = 1) -> None:
    """A repository of its own, made of a few files: nothing in it is shared but the mirror's objects.

    What agents stage never reaches the mirror, goes away with the attempt, and no lock is shared between runs.
    """
    for folder in ("refs", "objects/info", "info"):
        (git_dir / folder).mkdir(parents=True)
    algorithm = "" if len(sha) == _SHA1_DIGITS else "[extensions]\n\tobjectFormat = sha256\n"
    core = f"[core]\n\trepositoryFormatVersion = {1 if algorithm else 0}\n\tbare = false\n"
    cone = sparse.CONFIGURATION if path else ""
    (git_dir / "config").write_text(f"{core}{cone}[checkout]\n\tworkers = {workers}\n{algorithm}")
    (git_dir / "objects/info/alternates").write_text(f"{mirror / 'objects'}\n")
    (git_dir / "HEAD").write_text(f"{sha}\n")
    (git_dir / "info/attributes").write_text(_AS_STORED)
    if path:
        sparse.write_patterns(git_dir, path)
