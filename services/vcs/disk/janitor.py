"""Keeps the disk of this node within its bounds: removes worktrees that no attempt holds and mirrors that nobody uses.

What Postgres does not have is rescued first; what an attempt holds is never touched.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol
from uuid import UUID

from services.runtime.telemetry import logger
from services.vcs.disk.rescue import Rescue
from services.vcs.disk.usage import Disk, DiskLimits, DiskStatus, Measured, bytes_to_free, leaving_order
from services.vcs.errors import LeaseLostError, UnknownWorktreeError, VcsError
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.records import MirrorFolder
from services.vcs.worktrees.worktrees import Worktrees

log = logger("vcs.janitor")

# A sweep stays short, whatever has piled up: the next one goes on.
MOST_RELEASED: Final = 50
MOST_EVICTED: Final = 20
MOST_FORGOTTEN: Final = 200
# What failed is tried again and told again only after this.
RETRY_AFTER: Final = timedelta(minutes=5)


class Holders(Protocol):
    async def attempts_held(self, run_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        """The attempt that is running, for each of ``run_ids`` that an agent holds."""

    async def attempts_kept(self, run_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        """The attempt whose worktree is to stay after the run's end, for each of ``run_ids`` whose job says so."""


@dataclass
class Swept:
    """What one sweep did. ``rescued``: names of refs. ``failures``: in words; what they name was left as it was."""

    released: int = 0
    rescued: list[str] = field(default_factory=list)
    forgotten: int = 0
    evicted: list[str] = field(default_factory=list)
    freed_bytes: int = 0
    failures: list[str] = field(default_factory=list)


class Janitor:
    def __init__(
        self,
        *,
        worktrees: Worktrees,
        mirrors: Mirrors,
        holders: Holders,
        rescue: Rescue,
        disk: Disk,
        limits: DiskLimits,
        node: str,
    ) -> None:
        """``node``: this process's name, for its status."""
        self._worktrees = worktrees
        self._mirrors = mirrors
        self._holders = holders
        self._rescue = rescue
        self._disk = disk
        self._limits = limits
        self._node = node
        self._swept_at = 0
        self._again_at: dict[str, float] = {}

    async def run_once(self) -> Swept:
        """Sweep once; raises ``StoreUnavailableError``, having removed nothing that it could not ask about."""
        swept = Swept()
        await self._release_orphans(swept)
        measured: Measured | None = None
        async with self._survived("the disk", swept):
            measured = await self._disk.measure()
        if measured is not None:
            await self._unpin(measured, swept)
            await self._forget_rescued(measured, swept)
            freed = await self._drop_spares(measured, swept)
            freed += await self._release_kept(measured, freed, swept)
            await self._evict(measured, freed, swept)
        if swept.forgotten:
            self._disk.look_again()
        self._swept_at = int(time.time())
        return swept

    async def status(self, repository_key: str = "") -> DiskStatus:
        """The disk now, or a minute ago; of one repository's mirror where ``repository_key`` names it.

        Raises ``VcsError``, ``OSError``, ``TimeoutError``.
        """
        measured = await self._disk.measure()
        asked = [mirror for mirror in measured.mirrors if repository_key in {"", mirror.key}]
        return DiskStatus(
            node=self._node,
            used_bytes=measured.used_bytes,
            budget_bytes=self._limits.budget_bytes,
            free_bytes=self._disk.space()[0],
            worktrees=len(measured.worktrees),
            mirrors=tuple(measured.usage_of(mirror) for mirror in asked),
            swept_at=self._swept_at,
        )

    async def _release_orphans(self, swept: Swept) -> None:
        present = [(run_id, attempt) for run_id, attempt in self._worktrees.present() if _is_uuid(run_id)]
        run_ids = [UUID(run_id) for run_id, _ in present]
        held, kept = await self._holders.attempts_held(run_ids), await self._holders.attempts_kept(run_ids)
        orphans = [one for one in present if one[1] not in (held.get(UUID(one[0])), kept.get(UUID(one[0])))]
        waiting = [one for one in orphans if self._may_try(_named(*one))]
        # The highest attempt first: while one is there, the lower ones of its run count as displaced.
        for run_id, attempt in sorted(waiting, key=lambda one: -one[1])[:MOST_RELEASED]:
            async with self._survived(_named(run_id, attempt), swept):
                await self._release(run_id, attempt, swept)

    async def _release(self, run_id: str, attempt: int, swept: Swept) -> None:
        try:
            ref = await self._rescue.rescue(run_id, attempt)
        except UnknownWorktreeError:
            ref = ""  # half made or half removed, and whoever was at it has lost the run
        except LeaseLostError:
            ref = ""  # displaced by a newer attempt, which began from the run's checkpoint
        if ref:
            swept.rescued.append(ref)
            log.warning("rescued what a worktree held", run=run_id, attempt=attempt, ref=ref)
        freed = await self._disk.bytes_of(run_id, attempt)
        if await self._is_held(run_id, attempt):
            return
        await self._worktrees.release(run_id, attempt)
        swept.released += 1
        swept.freed_bytes += freed
        log.info("released a worktree that nobody holds", run=run_id, attempt=attempt, freed_bytes=freed)

    async def _is_held(self, run_id: str, attempt: int) -> bool:
        held = await self._holders.attempts_held([UUID(run_id)])
        return held.get(UUID(run_id)) == attempt

    async def _unpin(self, measured: Measured, swept: Swept) -> None:
        """Drop pins of runs that are not here and that nobody holds: their vcs was killed between pin and worktree."""
        pins = [(folder, run_id) for folder, kept in measured.kept.items() for run_id in kept.pinned]
        here = {run_id for run_id, _ in self._worktrees.present()}
        lost = [(folder, run_id) for folder, run_id in pins if _is_uuid(run_id) and run_id not in here]
        held = await self._holders.attempts_held([UUID(run_id) for _, run_id in lost]) if lost else {}
        for folder, run_id in lost:
            if UUID(run_id) not in held and self._may_try(folder):
                async with self._survived(folder, swept):
                    await self._mirrors.unpin(folder, run_id)
                    swept.forgotten += 1

    async def _forget_rescued(self, measured: Measured, swept: Swept) -> None:
        oldest = time.time() - self._limits.rescued_kept.total_seconds()
        old = [(folder, work) for folder, kept in measured.kept.items() for work in kept.rescued if work.time < oldest]
        for folder, work in old[:MOST_FORGOTTEN]:
            if self._may_try(folder):
                async with self._survived(folder, swept):
                    await self._rescue.forget(folder, work)
                    swept.forgotten += 1
                    log.info("dropped rescued work that was kept for long enough", ref=work.ref, sha=work.commit_sha)

    async def _drop_spares(self, measured: Measured, swept: Swept) -> int:
        """Remove spare worktrees that are too old, and others, oldest first, until the disk has its room.

        The bytes that this freed, of those that were measured.
        """
        spares, freed = self._worktrees.spares, 0
        for spare in spares.present():
            may_stay = spares.is_on and not spare.is_old
            if not self._may_try(spare.path.name) or (may_stay and self._missing_bytes(measured, freed) <= 0):
                continue
            async with self._survived(spare.path.name, swept):
                await spares.remove(spare)
                freed += measured.spares.get(spare, 0)
                log.info("removed a spare worktree", mirror=spare.mirror, kept_at=int(spare.kept_at))
        swept.freed_bytes += freed
        return freed

    async def _release_kept(self, measured: Measured, freed: int, swept: Swept) -> int:
        """Release worktrees of ended runs, oldest first, until the disk has its room; the bytes that this freed."""
        before = swept.freed_bytes
        missing = self._missing_bytes(measured, freed)
        for run_id, attempt in await self._kept(measured) if missing > 0 else []:
            if missing <= swept.freed_bytes - before:
                break
            async with self._survived(_named(run_id, attempt), swept):
                await self._release(run_id, attempt, swept)
        return swept.freed_bytes - before

    async def _kept(self, measured: Measured) -> list[tuple[str, int]]:
        """The oldest of those that their jobs keep."""
        run_ids = [UUID(run_id) for run_id, _ in measured.worktrees if _is_uuid(run_id)]
        kept = await self._holders.attempts_kept(run_ids)
        here = [one for one in measured.worktrees if _is_uuid(one[0]) and kept.get(UUID(one[0])) == one[1]]
        waiting = [one for one in here if self._may_try(_named(*one))]
        return sorted(waiting, key=lambda one: self._disk.begun_at(*one))[:MOST_RELEASED]

    def _missing_bytes(self, measured: Measured, freed: int = 0) -> int:
        """``freed``: of what was measured, since."""
        free, total = self._disk.space()
        return bytes_to_free(self._limits, used=measured.used_bytes - freed, free=free, total=total)

    async def _evict(self, measured: Measured, freed: int, swept: Swept) -> None:
        """Remove mirrors, least recently used first: those unused for too long, then until the disk has its room."""
        missing = self._missing_bytes(measured, freed)
        oldest = time.time() - self._limits.mirrors_kept.total_seconds()
        for mirror in leaving_order(measured.mirrors):
            if (mirror.used_at >= oldest and missing <= 0) or len(swept.evicted) >= MOST_EVICTED:
                break
            if self._may_try(mirror.folder):
                async with self._survived(mirror.folder, swept):
                    missing -= await self._remove(mirror, swept)
        if missing > 0 and self._may_try(_FULL):
            self._postpone(_FULL)
            log.warning("the disk's bounds cannot be kept: what is left is in use", missing_bytes=missing)

    async def _remove(self, mirror: MirrorFolder, swept: Swept) -> int:
        """The bytes that removing the mirror freed: none where a worktree, a pin or rescued work needs it."""
        if mirror.folder in self._disk.mirrors_in_use():
            return 0
        if not await self._mirrors.remove(mirror.folder, unused_since=mirror.used_at):
            return 0
        for spare in self._worktrees.spares.present():
            if spare.mirror == mirror.folder:
                await self._worktrees.spares.remove(spare)
        swept.evicted.append(mirror.folder)
        swept.freed_bytes += mirror.bytes
        log.info("removed a mirror", repository=mirror.key, freed_bytes=mirror.bytes, used_at=int(mirror.used_at))
        return mirror.bytes

    @asynccontextmanager
    async def _survived(self, what: str, swept: Swept) -> AsyncIterator[None]:
        """Let one failure not end the sweep; what failed is left alone for a while."""
        try:
            yield
        except (VcsError, OSError) as error:  # TimeoutError is an OSError
            self._postpone(what)
            swept.failures.append(f"{what}: {error}")
            log.warning("left as it is; it will be tried again", what=what, error=str(error))

    def _postpone(self, what: str) -> None:
        now = time.monotonic()
        self._again_at = {name: at for name, at in self._again_at.items() if at > now}
        self._again_at[what] = now + RETRY_AFTER.total_seconds()

    def _may_try(self, what: str) -> bool:
        return time.monotonic() >= self._again_at.get(what, 0.0)


_FULL: Final = "the disk's bounds"


def _named(run_id: str, attempt: int) -> str:
    return f"attempt {attempt} of run {run_id}"


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
