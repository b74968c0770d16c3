"""A whole small job, prompt to pushed branch, against what Git alone takes for the same change."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from quarterdeck import Client
from quarterdeck.demo.git import git
from tests.bench.measure import Bench, JobFailedError, Result, median_ms, percentile
from tests.bench.stacks import CHANGED_FILES, PROMPT, running_stack, small_origin

NAME = "small_job"
GOAL_MS = 1_000.0
WARM_UP = 3


async def measure(bench: Bench) -> Result:
    repository = small_origin(bench.folder(NAME))
    times = bench.samples(20, 5)
    async with running_stack(bench, NAME) as info, Client(info.address, info.api_key) as client:
        bench.say(f"{NAME}: submitting")
        for _ in range(WARM_UP):
            await _job(client, repository)
        seconds = [await _job(client, repository) for _ in range(times)]
    plain = [_by_hand(repository, bench.scratch / f"{NAME}-clone", f"by-hand-{number}") for number in range(times)]
    p50 = percentile(seconds, 50) * 1000
    return Result(
        name=NAME,
        what="three files replaced and pushed, offline model: submit to final, p50",
        figure=p50,
        unit="ms",
        compared_with="git clone, commit and push of the same change, by hand",
        baseline=median_ms(plain),
        goal=f"≤ {GOAL_MS:g} ms",
        met=p50 <= GOAL_MS,
        details={"p95": percentile(seconds, 95) * 1000, "fastest": min(seconds) * 1000},
    )


async def _job(client: Client, repository: Path) -> float:
    """Seconds until the client knows that the job is final. Raises JobFailedError."""
    began = time.perf_counter()
    job = await client.wait((await client.submit(PROMPT, [str(repository)])).id)
    seconds = time.perf_counter() - began
    if job.state != "completed":
        raise JobFailedError(f"job {job.id} is {job.state}, not completed; see the stack's logs")
    return seconds


def _by_hand(repository: Path, clone: Path, branch: str) -> float:
    began = time.perf_counter()
    git("clone", "--quiet", repository, clone, folder=repository)
    for name, content in CHANGED_FILES.items():
        (clone / name).write_text(content.replace("colour", "color"))
    git("commit", "--quiet", "--all", "--message=Change", folder=clone)
    git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}", folder=clone)
    seconds = time.perf_counter() - began
    shutil.rmtree(clone)
    return seconds
