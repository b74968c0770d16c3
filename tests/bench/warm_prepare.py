"""The vcs's worktree of 2,000 files from a warm mirror, against a bare `git worktree add`."""

from __future__ import annotations

import time

from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.worktrees.worktrees import Worktrees
from tests.bench.floor import worktree_add
from tests.bench.measure import Bench, Result, median_ms, percentile
from tests.bench.stacks import origin

NAME = "warm_prepare"
MOST_RATIO = 2.0
FILES = 2_000
MOST_SECONDS = 25
"""On a slow disk fewer samples are taken, at least ``LEAST``."""
LEAST = 3
_A_FOLDER = 50


async def measure(bench: Bench) -> Result:
    files = {f"part_{n // _A_FOLDER}/file_{n}.py": f"value_{n} = {n}\n" * 20 for n in range(FILES)}
    bare = origin(bench.folder(NAME), files=files)
    repository = parse_repository(str(bare), allow_local=True)
    root = bench.folder(f"{NAME}-vcs")
    git = Git(root / "home", allow_local=True)
    mirrors = Mirrors(root, git)
    worktrees = Worktrees(root, mirrors, git)
    await mirrors.fetch(repository)
    prepared, added = [], []
    bench.say(f"{NAME}: preparing")
    end = time.perf_counter() + MOST_SECONDS
    # In turns, so that a busier machine weighs on both alike.
    for number in range(bench.samples(20, 5)):
        if number >= LEAST and time.perf_counter() > end:
            break
        began = time.perf_counter()
        await worktrees.prepare(f"run-{number}", 1, repository)
        prepared.append(time.perf_counter() - began)
        await worktrees.release(f"run-{number}", 1)
        added.append(worktree_add(mirrors.place(repository).git_dir, root / "added"))
    figure, baseline = median_ms(prepared), median_ms(added)
    return Result(
        name=NAME,
        what=f"vcs: a worktree of {FILES:,} files, warm mirror, p50",
        figure=figure,
        unit="ms",
        compared_with="git worktree add on the same mirror",
        baseline=baseline,
        goal=f"ratio ≤ {MOST_RATIO:g}",
        met=figure / baseline <= MOST_RATIO,
        details={"p95": percentile(prepared, 95) * 1000, "samples": len(prepared)},
    )
