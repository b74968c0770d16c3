"""What a run delivers, made from a worktree with 100 changed files: diff and commit, against bare Git."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from quarterdeck.demo.git import git, line
from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Git
from services.vcs.git.trees import CommitMetadata
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.worktrees.commits import Commits
from services.vcs.worktrees.worktrees import Worktrees
from tests.bench.measure import Bench, Result, median_ms, percentile
from tests.bench.vcs_history import copied_history

NAME = "vcs_commit"
MOST_RATIO = 1.2
CHANGED = 100
ROUNDS, ROUNDS_QUICK = 30, 7
_NEXT_SECOND = 1.1
"""Within the second of the checkout Git cannot tell what changed since; no model answers as soon."""
_RUN = ("run-commit", 1)
_METADATA = CommitMetadata("Bench", "bench@quarterdeck.invalid", time=1_767_225_600, message="Change")


async def measure(bench: Bench) -> Result:
    folder = bench.folder(NAME)
    history = await asyncio.to_thread(copied_history, folder / "origin.git", bench.say)
    repository = parse_repository(str(history.path), allow_local=True)
    runner = Git(folder / "home", allow_local=True)
    mirrors = Mirrors(folder, runner)
    worktrees = Worktrees(folder, mirrors, runner)
    commits = Commits(runner, mirrors, worktrees)
    ready = await worktrees.prepare(*_RUN, repository)
    bare = folder / "bare"
    git("worktree", "add", "--quiet", "--detach", bare, ready.base_sha, folder=mirrors.place(repository).git_dir)
    changed = _spread(bare)
    ours, floor = [], []
    await asyncio.sleep(_NEXT_SECOND)
    bench.say(f"{NAME}: committing")
    # A round more: the first settles what both remember of the files as they were checked out.
    for number in range(bench.samples(ROUNDS, ROUNDS_QUICK) + 1):
        _change((ready.path, bare), changed, number)
        if number == 0:
            await worktrees.checkpoint(*_RUN)
        if number % 2:
            floor.append(_bare_commit(bare, ready.base_sha))
        began = time.perf_counter()
        committed = await commits.commit_worktree(*_RUN, _METADATA)
        ours.append(time.perf_counter() - began)
        if not number % 2:
            floor.append(_bare_commit(bare, ready.base_sha))
        if len(committed.files) != CHANGED:
            raise RuntimeError(f"{len(committed.files)} files were committed, not {CHANGED}")
    return _result(ours[1:], floor[1:], history.files)


def _spread(worktree: Path) -> list[str]:
    """So many Python files, all over the repository."""
    found = line("ls-files", "*.py", folder=worktree).splitlines()
    return found[:: len(found) // CHANGED][:CHANGED]


def _change(worktrees: tuple[Path, ...], files: list[str], number: int) -> None:
    for worktree in worktrees:
        for file in files:
            with (worktree / file).open("a") as opened:
                opened.write(f"\nround = {number}\n")


def _bare_commit(worktree: Path, base_sha: str) -> float:
    """Seconds of what somebody would type: stage, commit, and the patch against the base."""
    began = time.perf_counter()
    git("add", "--all", folder=worktree)
    git("commit", "--quiet", "--message=Change", folder=worktree)
    git("diff", "--binary", base_sha, "HEAD", folder=worktree)
    return time.perf_counter() - began


def _result(ours: list[float], floor: list[float], files: int) -> Result:
    figure, baseline = median_ms(ours), median_ms(floor)
    return Result(
        name=NAME,
        what=f"vcs: diff and commit of {CHANGED} changed files among {files:,}, p50",
        figure=figure,
        unit="ms",
        compared_with="git add, git commit and git diff --binary in a bare worktree",
        baseline=baseline,
        goal=f"ratio ≤ {MOST_RATIO:g}",
        met=figure / baseline <= MOST_RATIO,
        details={"p95": percentile(ours, 95) * 1000, "bare, p95": percentile(floor, 95) * 1000, "samples": len(ours)},
    )
