"""Fifty runs that begin at once on one repository that has moved on: time, fetches and memory of the vcs service."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Bench, Result
from tests.bench.vcs_history import History, copied_history
from tests.bench.vcs_memory import ProgramsPeak, peak_mb, programs_peak, resident_mb
from tests.bench.vcs_remote import Remote, serving
from tests.bench.vcs_service import VcsService, vcs_service

NAME = "vcs_crowd"
RUNS, RUNS_QUICK = 50, 8
MOST_RATIO = 1.3
MOST_MB = 200.0
_HEAD = "refs/remotes/origin/HEAD"
_ADD_SECONDS = 60


async def measure(bench: Bench) -> list[Result]:
    folder = bench.folder(NAME)
    runs = bench.samples(RUNS, RUNS_QUICK)
    history = await asyncio.to_thread(copied_history, folder / "origin.git", bench.say)
    async with serving(folder) as remote, vcs_service(bench, NAME, remote, runs=runs) as vcs:
        url = remote.url(history.path.name)
        await vcs.clone(url)
        bench.say(f"{NAME}: {runs} runs at once, between two halves of as many bare worktrees")
        before = await asyncio.to_thread(_added, vcs.mirror(), folder / "before", runs // 2)
        taken = await _crowd(vcs, remote, history, url)
        after = await asyncio.to_thread(_added, vcs.mirror(), folder / "after", runs - runs // 2)
    return _results(taken, before + after, f"{history.files:,} files, {history.title}")


@dataclass(frozen=True)
class _Crowd:
    """``asked``, ``packs``: how often the remote was asked anything, and how often it sent a pack."""

    runs: int
    seconds: float
    asked: int
    packs: int
    idle_mb: float
    peak_mb: float
    programs: ProgramsPeak


async def _crowd(vcs: VcsService, remote: Remote, history: History, url: str) -> _Crowd:
    idle, asked, packs = resident_mb(vcs.pid), remote.asked, remote.packs
    history.advance()
    await asyncio.to_thread(os.sync)
    async with programs_peak(vcs.pid) as programs:
        began = time.perf_counter()
        ready = await asyncio.gather(*(vcs.prepare(hold, url) for hold in vcs.holds))
        seconds = time.perf_counter() - began
    if {each.base_sha for each in ready} != {history.newest}:
        raise RuntimeError("a worktree does not hold the commit that was just pushed")
    return _Crowd(len(ready), seconds, remote.asked - asked, remote.packs - packs, idle, peak_mb(vcs.pid), programs)


def _added(mirror: Path, folder: Path, count: int) -> float:
    """Seconds of so many bare `git worktree add` of what ``mirror`` has, one after the other; they stay."""
    os.sync()
    add = ("git", "-C", str(mirror), "worktree", "add", "--quiet", "--detach")
    began = time.perf_counter()
    for number in range(count):
        subprocess.run([*add, str(folder / str(number)), _HEAD], check=True, timeout=_ADD_SECONDS)
    return time.perf_counter() - began


def _results(taken: _Crowd, sequential_seconds: float, repository: str) -> list[Result]:
    return [
        Result(
            name=NAME,
            what=f"vcs: {taken.runs} runs begin at once on a repository that has moved on ({repository})",
            figure=taken.seconds,
            unit="s",
            compared_with=f"{taken.runs} times git worktree add on the same mirror, in sequence",
            baseline=sequential_seconds,
            goal=f"ratio ≤ {MOST_RATIO:g}, one fetch",
            met=taken.seconds / sequential_seconds <= MOST_RATIO and taken.packs == 1,
            details={"fetches that were sent a pack": taken.packs, "commands that asked the remote": taken.asked},
        ),
        Result(
            name=f"{NAME}_memory",
            what="the vcs process meanwhile, without the Git that it runs, at its peak",
            figure=taken.peak_mb,
            unit="MB",
            compared_with="the same process before",
            baseline=taken.idle_mb,
            goal=f"≤ {MOST_MB:g} MB",
            met=taken.peak_mb <= MOST_MB,
            details={"largest Git": taken.programs.largest, "all Git at once": taken.programs.together},
        ),
    ]
