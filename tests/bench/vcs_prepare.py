"""A second run on a big repository, from the call to the worktree, against a bare `git worktree add` and a clone.

The first one's worktree was worked in and given back, and is taken over; without that it is checked out afresh.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from services.contracts.v1.vcs_pb2 import PrepareReady
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


_CHANGED, _NEW, _IGNORED = 100, 500, 500
"""Files that a run's agent and its commands change and leave behind."""


@dataclass
class _Taken:
    """Seconds of each sample. ``fresh``: of a run for which no worktree was left."""

    prepared: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    cloned: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Contest:
    vcs: VcsService
    url: str
    scratch: Path

    async def prepare(self, hold: Hold) -> float:
        """Of a run after which the next one takes its worktree over."""
        ready, seconds = await self._prepared(hold)
        await asyncio.to_thread(_work_in, Path(ready.path))
        await _written()
        await self.vcs.release(hold, reusable=True)
        return seconds

    async def prepare_afresh(self, stranger: Hold) -> float:
        _, seconds = await self._prepared(stranger)
        await self.vcs.release(stranger)
        return seconds

    async def _prepared(self, hold: Hold) -> tuple[PrepareReady, float]:
        await _written()
        began = time.perf_counter()
        ready = await self.vcs.prepare(hold, self.url)
        return ready, time.perf_counter() - began

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
    async with (
        serving(folder) as remote,
        vcs_service(bench, NAME, remote, runs=samples + 1, strangers=samples) as vcs,
    ):
        url = remote.url(history.path.name)
        await vcs.clone(url)
        bench.say(f"{NAME}: preparing")
        taken = await _taken(_Contest(vcs, url, folder), bench)
    return _results(taken, f"{history.files:,} files, {history.title}")


async def _taken(contest: _Contest, bench: Bench) -> _Taken:
    """In turns, and each first as often as second, so that a busier machine weighs on both alike."""
    taken, clones = _Taken(), bench.samples(_CLONES, _CLONES_QUICK)
    end = time.perf_counter() + bench.samples(MOST_SECONDS, MOST_SECONDS_QUICK)
    first, *seconds = contest.vcs.holds
    await contest.prepare(first)
    for number, (hold, stranger) in enumerate(zip(seconds, contest.vcs.strangers, strict=True)):
        if number >= LEAST and time.perf_counter() > end:
            break
        if number % 2:
            taken.added.append(await contest.add())
        taken.prepared.append(await contest.prepare(hold))
        taken.fresh.append(await contest.prepare_afresh(stranger))
        if not number % 2:
            taken.added.append(await contest.add())
        if len(taken.cloned) < clones:
            taken.cloned.append(await contest.clone())
    return taken


def _results(taken: _Taken, repository: str) -> list[Result]:
    cloned = median_ms(taken.cloned)
    left = f"the one before changed {_CHANGED} files and left {_NEW + _IGNORED:,} more"
    second = _beside_worktree_add(NAME, f"vcs: a second run's worktree over gRPC ({repository}; {left}), p50", taken)
    return [
        second,
        Result(
            name=f"{NAME}_clone",
            what="the same",
            figure=second.figure,
            unit="ms",
            compared_with="git clone from the same server, over HTTP",
            baseline=cloned,
            goal=f"≥ {LEAST_TIMES_FASTER:g} times as fast",
            met=cloned / second.figure >= LEAST_TIMES_FASTER,
            details={"times as fast": cloned / second.figure, "clones": len(taken.cloned)},
        ),
        _beside_worktree_add(f"{NAME}_fresh", "the same where no worktree was left, p50", taken, is_fresh=True),
    ]


def _beside_worktree_add(name: str, what: str, taken: _Taken, *, is_fresh: bool = False) -> Result:
    samples = taken.fresh if is_fresh else taken.prepared
    figure, added = median_ms(samples), median_ms(taken.added)
    return Result(
        name=name,
        what=what,
        figure=figure,
        unit="ms",
        compared_with="git worktree add on the same mirror",
        baseline=added,
        goal=f"ratio ≤ {MOST_RATIO:g}",
        met=figure / added <= MOST_RATIO,
        details={
            "p95": percentile(samples, 95) * 1000,
            "samples": len(samples),
            "worktree add, p95": percentile(taken.added, 95) * 1000,
        },
    )


def _work_in(worktree: Path) -> None:
    """What an agent and its commands do: change files here and there, write new ones beside them, leave caches."""
    found = sorted(path for path in worktree.rglob("*") if path.is_file() and path.name != ".git")
    for path in found[:: len(found) // _CHANGED][:_CHANGED]:
        with path.open("a") as file:
            file.write("# changed\n")
    for number in range(_NEW):
        found[number * len(found) // _NEW].with_suffix(f".{number}.new").write_text("new\n" * 100)
    for number in range(_IGNORED):
        cache = found[number * len(found) // _IGNORED].parent / "__pycache__"
        cache.mkdir(exist_ok=True)
        (cache / f"{number}.pyc").write_text("compiled\n" * 100)


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
