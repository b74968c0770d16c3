"""Where mirrors lie, who may change or use one now, what they take, and their removal. Fetches nothing."""

import asyncio
import re
import time
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import BusyError, VcsError
from services.vcs.mirrors.files import half_made, put_aside, remove_tree
from services.vcs.mirrors.records import MirrorFolder, describe, used_at
from services.vcs.mirrors.salvage import kept_refs
from services.vcs.mirrors.sharing import file_lock

# Between a fetch and the pin that keeps its commit: longer than any preparation takes to get from one to the other.
PIN_GRACE: Final = timedelta(minutes=10)
_AT_ONCE: Final = timedelta(0)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


class MirrorFolders:
    """Two locks a mirror: who writes it holds the one alone; who needs it to stay holds the other, with others."""

    def __init__(self, root: Path, *, timeout: timedelta) -> None:
        """``root``: made when the first mirror is. ``timeout``: how long another's fetch is waited for."""
        self._root = root
        self._timeout = timeout

    def git_dir(self, folder: str) -> Path:
        if not _NAME.fullmatch(folder):
            raise VcsError(f"{folder[:100]!a} names no mirror; give the name of its folder, without .git")
        return self._root / f"{folder}.git"

    def lock(self, folder: str, *, timeout: timedelta | None = None) -> AbstractAsyncContextManager[None]:
        """To be held by whoever fetches into a mirror, replaces or removes it. Raises ``BusyError``."""
        path = self.git_dir(folder).with_suffix(".lock")
        return file_lock(path, timeout=self._timeout if timeout is None else timeout)

    def using(self, folder: str) -> AbstractAsyncContextManager[None]:
        """While it is held the mirror is not removed; fetching goes on. Raises ``BusyError``."""
        return file_lock(self._use(folder), timeout=self._timeout, shared=True)

    async def usages(self) -> list[MirrorFolder]:
        """What every mirror takes, by the names of their folders."""
        return await asyncio.to_thread(lambda: [describe(path) for path in self._present()])

    async def remove(self, folder: str, unused_since: float | None) -> bool:
        """Whether the mirror is gone now; nothing is waited for."""
        git_dir = self.git_dir(folder)
        latest = time.time() - PIN_GRACE.total_seconds()
        try:
            async with self.lock(folder, timeout=_AT_ONCE), file_lock(self._use(folder), timeout=_AT_ONCE):
                if not git_dir.exists():
                    return True
                if used_at(git_dir) > min(latest if unused_since is None else unused_since, latest) or kept_refs(
                    git_dir
                ):
                    return False
                aside = put_aside(git_dir)
        except BusyError:
            return False
        await remove_tree(aside)
        return True

    async def sweep(self) -> None:
        """Remove what a killed process was making or removing, unless another is at it."""
        stems = {path.name.rsplit(".", 2)[0].removeprefix(".") for path in self._root.glob(".*.*.*")}
        for folder in sorted(stem for stem in stems if _NAME.fullmatch(stem)):
            try:
                async with self.lock(folder, timeout=_AT_ONCE):
                    for leftover in await asyncio.to_thread(half_made, self.git_dir(folder)):
                        await remove_tree(leftover)
            except BusyError:
                continue

    def _use(self, folder: str) -> Path:
        return self.git_dir(folder).with_suffix(".use.lock")

    def _present(self) -> list[Path]:
        return sorted(path for path in self._root.glob("*.git") if not path.name.startswith("."))
