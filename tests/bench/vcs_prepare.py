"""A second run on a big repository, from the call to the worktree, against a bare `git worktree add` and a clone."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from services.jobs.models import Hold
from tests.bench.floor import worktree_add
from tests.bench.measure import Bench, Result, median_ms, percentile
from tests.bench.vcs_history import copied_history
from tests.bench.vcs_remote import serving
from tests.bench.vcs_service import VcsService, vcs_service

NAME = "vcs_prepare"
MOST_RATIO = 1.2
LEAST_TIMES_FASTER = 5.0
SAMPLES, SAMPLES_QUICK = 15, 3
MOST_SECONDS, MOST_SECONDS_QUICK = 90, 15
LEAST = 2
"""On a slow disk fewer samples are taken, at least so many."""
_CLONES, _CLONES_QUICK = 3, 1
_CLONE_SECONDS = 120


@dataclass
class _Taken:
    """Seconds of each sample."""

    prepared: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    cloned: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Contest:
    vcs: VcsService
    url: str
    scratch: Path

    async def prepare(self, hold: Hold) -> float:
        await _written()
        began = time.perf_counter()
        await self.vcs.prepare(hold, self.url)
        seconds = time.perf_counter() - began
        await self.vcs.release(hold)
        return seconds

    async def add(self) -> float:
        await _written()
        return await asyncio.to_thread(worktree_add, self.vcs.mirror(), self.scratch / "added")

    async def clone(self) -> float:
        await _written()
        return await asyncio.to_thread(_cloned, self.url, self.scratch / "cloned")


async def measure(bench: Bench) -> list[Result]:
    folder = bench.folder(NAME)
    samples = bench.samples(SAMPLES, SAMPLES_QUICK)
    history = await asyncio.to_thread(copied_history, folder / "origin.git", bench.say)
    history.advance()
    async with serving(folder) as remote, vcs_service(bench, NAME, remote, runs=samples) as vcs:
        url = remote.url(history.path.name)
        await vcs.clone(url)
        bench.say(f"{NAME}: preparing")
        taken = await _taken(_Contest(vcs, url, folder), bench)
    return _results(taken, f"{history.files:,} files, {history.title}")


async def _taken(contest: _Contest, bench: Bench) -> _Taken:
    """In turns, and each first as often as second, so that a busier machine weighs on both alike."""
    taken, clones = _Taken(), bench.samples(_CLONES, _CLONES_QUICK)
    end = time.perf_counter() + bench.samples(MOST_SECONDS, MOST_SECONDS_QUICK)
    for number, hold in enumerate(contest.vcs.holds):
        if number >= LEAST and time.perf_counter() > end:
            break
        if number % 2:
            taken.added.append(await contest.add())
        taken.prepared.append(await contest.prepare(hold))
        if not number % 2:
            taken.added.append(await contest.add())
        if len(taken.cloned) < clones:
            taken.cloned.append(await contest.clone())
    return taken


def _results(taken: _Taken, repository: str) -> list[Result]:
    figure, added, cloned = median_ms(taken.prepared), median_ms(taken.added), median_ms(taken.cloned)
    what = f"vcs: a second run's worktree over gRPC ({repository}), p50"
    details = {"p95": percentile(taken.prepared, 95) * 1000, "samples": len(taken.prepared)}
    return [
        Result(
            name=NAME,
            what=what,
            figure=figure,
            unit="ms",
            compared_with="git worktree add on the same mirror",
            baseline=added,
            goal=f"ratio ≤ {MOST_RATIO:g}",
            met=figure / added <= MOST_RATIO,
            details=details | {"worktree add, p95": percentile(taken.added, 95) * 1000},
        ),
        Result(
            name=f"{NAME}_clone",
            what="the same",
            figure=figure,
            unit="ms",
            compared_with="git clone from the same server, over HTTP",
            baseline=cloned,
            goal=f"≥ {LEAST_TIMES_FASTER:g} times as fast",
            met=cloned / figure >= LEAST_TIMES_FASTER,
            details={"times as fast": cloned / figure, "clones": len(taken.cloned)},
        ),
    ]


async def _written() -> None:
    """Let the disk have what was written and removed before, or whoever comes next would wait for it."""
    await asyncio.to_thread(os.sync)


def _cloned(url: str, target: Path) -> float:
    """Seconds; removed again, which is not counted."""
    began = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", url, str(target)], check=True, timeout=_CLONE_SECONDS)
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds
