"""What the mirrors and worktrees of this node take, and how much of it must go. Removes nothing."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.runtime.telemetry import logger
from services.vcs.disk.rescue import Kept, Rescue, RescuedWork
from services.vcs.errors import VcsError
from services.vcs.git.processes import run_process
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.records import MirrorFolder
from services.vcs.mirrors.sharing import SharedWork
from services.vcs.worktrees.attempts import Attempts
from services.vcs.worktrees.spares import Spare, spares_in

log = logger("vcs.disk")

MEASURE_TIMEOUT: Final = timedelta(minutes=10)
_GOOD_FOR: Final = timedelta(minutes=1)
# Looking at every file of hundreds of worktrees takes a while: no more of the time than this goes into it.
_LARGEST_SHARE_OF_TIME: Final = 0.05
_FOLDERS_A_COMMAND: Final = 500
_KIBIBYTE: Final = 1024


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """``budget_bytes``: for mirrors and worktrees together, 0: none. ``least_free_share``: of the whole disk, 0 to 1.

    ``mirrors_kept``: after their last use. ``rescued_kept``: after the rescue.
    """

    budget_bytes: int = 0
    least_free_share: float = 0.05
    mirrors_kept: timedelta = timedelta(days=30)
    rescued_kept: timedelta = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class MirrorUsage:
    """``repository``: host/owner/name. Times: seconds since the epoch, 0: not known. ``worktree_bytes``: spares too."""

    repository: str
    bytes: int
    used_at: int
    fetched_at: int
    worktrees: int
    worktree_bytes: int
    rescued: tuple[RescuedWork, ...]


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """Totals are the node's, whichever ``mirrors`` were asked for.

    ``swept_at``: seconds since the epoch, 0: not yet.
    """

    node: str
    used_bytes: int
    budget_bytes: int
    free_bytes: int
    worktrees: int
    mirrors: tuple[MirrorUsage, ...]
    swept_at: int


@dataclass(frozen=True, slots=True)
class WorktreeUsage:
    """``mirror``: the folder of the mirror that it is from; empty for one that is half made."""

    mirror: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Measured:
    """``kept``: by a mirror's folder; a mirror that cannot be read is not in it. ``spares``: the bytes of each."""

    mirrors: Sequence[MirrorFolder]
    kept: Mapping[str, Kept]
    worktrees: Mapping[tuple[str, int], WorktreeUsage]
    spares: Mapping[Spare, int]
    trash_bytes: int

    @property
    def used_bytes(self) -> int:
        worktrees = sum(usage.bytes for usage in self.worktrees.values()) + sum(self.spares.values())
        return self.trash_bytes + worktrees + sum(mirror.bytes for mirror in self.mirrors)

    def usage_of(self, mirror: MirrorFolder) -> MirrorUsage:
        own = [usage for usage in self.worktrees.values() if usage.mirror == mirror.folder]
        spares = sum(taken for spare, taken in self.spares.items() if spare.mirror == mirror.folder)
        kept = self.kept.get(mirror.folder)
        return MirrorUsage(
            repository=mirror.key,
            bytes=mirror.bytes,
            used_at=int(mirror.used_at),
            fetched_at=int(mirror.fetched_at),
            worktrees=len(own),
            worktree_bytes=sum(usage.bytes for usage in own) + spares,
            rescued=kept.rescued if kept else (),
        )


class Disk:
    def __init__(self, root: Path, mirrors: Mirrors, rescue: Rescue) -> None:
        """``root``: the data folder of this vcs."""
        self._root = root
        self._attempts = Attempts(root)
        self._mirrors = mirrors
        self._rescue = rescue
        self._measuring: SharedWork[Measured] = SharedWork()
        self._last: Measured | None = None
        self._good_until = 0.0

    async def measure(self) -> Measured:
        """What is there, of what was there a minute ago. Raises ``VcsError``, ``OSError``, ``TimeoutError``."""
        if self._last is None or time.monotonic() > self._good_until:
            return await self._measuring.run("all", lambda _: self._measure())
        return await asyncio.to_thread(self._still_there, self._last)

    def look_again(self) -> None:
        """Have the next call measure anew: references were removed."""
        self._last = None

    def space(self) -> tuple[int, int]:
        """How many bytes of the disk are free to us, and how many it has."""
        usage = shutil.disk_usage(self._root)
        return usage.free, usage.total

    def begun_at(self, run_id: str, attempt: int) -> float:
        """When the attempt's folders were made, in seconds since the epoch; 0 where none is there."""
        return self._attempts.begun_at(run_id, attempt)

    def mirrors_in_use(self) -> set[str]:
        """The folders of the mirrors that worktrees are from."""
        return {self._attempts.mirror_of(*one) for one in self._attempts.present()}

    async def bytes_of(self, run_id: str, attempt: int) -> int:
        sizes = await folder_bytes(self._attempts.folders(run_id, attempt))
        return sum(sizes.values())

    async def _measure(self) -> Measured:
        began = time.monotonic()
        mirrors = await self._mirrors.usages()
        kept = {mirror.folder: found for mirror in mirrors if (found := await self._kept(mirror.folder)) is not None}
        measured = await self._with_worktrees(mirrors, kept)
        took = time.monotonic() - began
        self._last = measured
        self._good_until = time.monotonic() + max(_GOOD_FOR.total_seconds(), took / _LARGEST_SHARE_OF_TIME)
        return measured

    def _still_there(self, measured: Measured) -> Measured:
        """Nothing that is gone is counted: others would be removed in its place."""
        present = set(self._attempts.present())
        return replace(
            measured,
            mirrors=[mirror for mirror in measured.mirrors if self._rescue.place(mirror.folder).git_dir.is_dir()],
            worktrees={one: usage for one, usage in measured.worktrees.items() if one in present},
            spares={spare: taken for spare, taken in measured.spares.items() if spare.path.is_dir()},
        )

    async def _with_worktrees(self, mirrors: Sequence[MirrorFolder], kept: Mapping[str, Kept]) -> Measured:
        present = self._attempts.present()
        folders = {one: self._attempts.folders(*one) for one in present}
        trash, spares = self._attempts.trash(), spares_in(self._root)
        others = [trash, *(spare.path for spare in spares)]
        sizes = await folder_bytes([*(folder for pair in folders.values() for folder in pair), *others])
        worktrees = {
            one: WorktreeUsage(self._attempts.mirror_of(*one), sum(sizes.get(folder, 0) for folder in pair))
            for one, pair in folders.items()
        }
        taken = {spare: sizes[spare.path] for spare in spares if spare.path in sizes}
        return Measured(mirrors, kept, worktrees, taken, sizes.get(trash, 0))

    async def _kept(self, folder: str) -> Kept | None:
        try:
            return await self._rescue.kept(folder)
        except VcsError as error:
            log.warning("a mirror's references cannot be read; it stays", mirror=folder, error=str(error))
            return None


async def folder_bytes(folders: Sequence[Path]) -> dict[Path, int]:
    """What each folder takes on the disk, in bytes; those that are not there are not in the answer.

    By a program of its own: the files are many, and nobody else in this process is to wait while they are counted.
    Raises ``TimeoutError``, ``OSError``.
    """
    there = [folder for folder in folders if await asyncio.to_thread(folder.is_dir)]
    sizes: dict[Path, int] = {}
    for start in range(0, len(there), _FOLDERS_A_COMMAND):
        ended = await run_process(
            ("du", "-sk", "--", *map(str, there[start : start + _FOLDERS_A_COMMAND])),
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            folder=Path("/"),
            timeout=MEASURE_TIMEOUT,
            max_output_bytes=16 * _KIBIBYTE * _KIBIBYTE,
        )
        for line in ended.stdout.decode("utf-8", "surrogateescape").splitlines():
            kibibytes, _, name = line.partition("\t")
            sizes[Path(name)] = int(kibibytes) * _KIBIBYTE
    return sizes


def bytes_to_free(limits: DiskLimits, *, used: int, free: int, total: int) -> int:
    """How much must go until both limits are kept; 0 where they are. All in bytes."""
    over_budget = used - limits.budget_bytes if limits.budget_bytes else 0
    too_little_free = int(limits.least_free_share * total) - free
    return max(0, over_budget, too_little_free)


def leaving_order(mirrors: Sequence[MirrorFolder]) -> list[MirrorFolder]:
    """Least recently used first."""
    return sorted(mirrors, key=lambda mirror: (mirror.used_at, mirror.folder))
