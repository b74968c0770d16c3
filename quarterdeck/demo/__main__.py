"""`python -m quarterdeck.demo`: starts the stack, runs one job on three real repositories, checks it, stops."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from quarterdeck.cli.console import console, print_error, text
from quarterdeck.cli.outcomes import changes, outcome_view
from quarterdeck.cli.runs import print_diff
from quarterdeck.cli.stack import print_info
from quarterdeck.cli.watching import follow_job
from quarterdeck.client import Client
from quarterdeck.demo.checking import check_checkout, check_run
from quarterdeck.demo.git import GitError
from quarterdeck.demo.origins import Origin, checkout_folder, checkout_state, make_origins
from quarterdeck.demo.replacement import NoReplacementError, Replacement, choose
from quarterdeck.errors import NotFoundError, QuarterdeckError
from quarterdeck.stack import LocalStack, StackError, StackOptions
from services.contracts.rest import Job, Run

DEFAULT_FOLDER = Path(".quarterdeck") / "demo"
JOB_SECONDS = 900
DIFF_LINES = 60
AGENTS = 2


@dataclass
class Stopwatch:
    """How long each part took, in seconds."""

    started: float = field(default_factory=time.monotonic)
    parts: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.parts[part], self._last = now - self._last, now

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in self.parts.items())
        return f"{time.monotonic() - self.started:.1f} s in all: {parts}"


def main() -> int:
    """Exit code: 0 all is as asked, 1 something was wrong, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.demo", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_FOLDER, help="default: %(default)s")
    parser.add_argument("--keep", action="store_true", help="leave the stack running at the end, until Ctrl-C")
    options = parser.parse_args()
    try:
        problems = asyncio.run(run_demo(options.data_dir.absolute(), keep=options.keep))
    except (QuarterdeckError, StackError, GitError, NoReplacementError, TimeoutError, OSError) as error:
        problems = [str(error) or f"the demo did not end within {JOB_SECONDS} s"]
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("The demo was interrupted; everything it started is stopped.")
        return 130
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0


async def run_demo(folder: Path, *, keep: bool) -> list[str]:
    """The whole demo; what was wrong, in words. Whatever happens, nothing that it started goes on."""
    _stop_on_sigterm()
    watch, before = Stopwatch(), checkout_state(checkout_folder())
    options = StackOptions(data_dir=folder, agents=AGENTS)
    stack = LocalStack(options, on_notice=lambda notice: say(str(notice)), on_progress=lambda what: say(f"  {what}"))
    say(f"Making origins and starting the stack in {folder} …")
    origins_made = asyncio.create_task(asyncio.to_thread(make_origins, folder / "repositories", say))
    async with stack:
        watch.lap("stack")
        origins = await origins_made
        watch.lap("repositories")
        print_info(stack.info)
        async with Client(stack.info.address, stack.info.api_key) as client, asyncio.timeout(JOB_SECONDS):
            replacement, job, runs = await _carry_out(client, origins)
            watch.lap("job")
            await _print_changes(client, runs)
        problems = _check(origins, runs, replacement)
        problems += check_checkout(before, checkout_state(checkout_folder()))
        watch.lap("diffs and checks")
        if keep:
            await _wait_for_interrupt(stack)
    watch.lap("stop")
    _print_summary(job, len(origins), problems, watch)
    return problems


async def _carry_out(client: Client, origins: list[Origin]) -> tuple[Replacement, Job, list[Run]]:
    replacement = choose(origins)
    say(f"\nOne job on {', '.join(origin.name for origin in origins)}: {replacement.prompt}\n")
    job = await client.submit(replacement.prompt, [str(origin.path) for origin in origins], name=replacement.prompt)
    job, runs = await follow_job(client, job.id)
    return replacement, job, runs


async def _print_changes(client: Client, runs: list[Run]) -> None:
    for run in runs:
        console().rule(text(f"{run.repository}: {changes(run) or run.error or 'no change'}"))
        try:
            print_diff(await client.diff(run.id), most_lines=DIFF_LINES)
        except NotFoundError:
            say("no diff")
    console().rule()
    console().print(outcome_view(runs))


def _check(origins: list[Origin], runs: list[Run], replacement: Replacement) -> list[str]:
    by_repository = {run.repository: run for run in runs}
    return [
        problem for origin in origins for problem in check_run(origin, by_repository.get(str(origin.path)), replacement)
    ]


def _print_summary(job: Job, repositories: int, problems: list[str], watch: Stopwatch) -> None:
    if problems:
        say(f"Job {job.id} is {job.state}, and {len(problems)} thing(s) are wrong.")
    else:
        say(
            f"Checked: each of {repositories} origins has its branch with exactly one commit on top of the base, "
            "which holds exactly the asked change; the checkout is untouched."
        )
    say(str(watch))


async def _wait_for_interrupt(stack: LocalStack) -> None:
    say(f"The stack goes on at {stack.info.address}; Ctrl-C stops it.")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("Stopping …")


def _stop_on_sigterm() -> None:
    """SIGTERM ends the demo as Ctrl-C does: what it started is stopped first."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(Signals.SIGTERM, task.cancel)


def say(words: str) -> None:
    """A line to whoever looks on."""
    console().print(text(words), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
