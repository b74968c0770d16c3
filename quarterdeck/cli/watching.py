"""Following a job to its end: the command `watch`, and what `submit --watch` and the demo share with it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from uuid import UUID

import typer

from quarterdeck.cli.console import console, print_note
from quarterdeck.cli.ids import job_id
from quarterdeck.cli.options import AsJson, DataDir, JobArgument, connected
from quarterdeck.cli.outcomes import ExitCode, exit_code, outcome_view
from quarterdeck.cli.progress import JobProgress
from quarterdeck.cli.views import view_for
from quarterdeck.client import Client
from services.contracts.rest import Job, Run


def watch(job: JobArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a job live until it has finished; Ctrl-C leaves it running.

    The exit code tells the outcome: 0 completed, 3 only some runs completed, 4 failed, 5 cancelled.
    """

    async def find() -> UUID:
        async with connected(data_dir) as client:
            return await job_id(client, job)

    watch_to_end(asyncio.run(find()), as_json=as_json, data_dir=data_dir)


def watch_to_end(identifier: UUID, *, as_json: bool, data_dir: Path | None) -> None:
    """Show the job until it has finished, then exit with the code of its outcome."""

    async def run() -> tuple[Job, list[Run]]:
        async with connected(data_dir) as client:
            return await follow_job(client, identifier, as_json=as_json)

    try:
        job, runs = asyncio.run(run())
    except KeyboardInterrupt:
        print_note(f"Job {identifier} goes on. Cancel it with: quarterdeck cancel {identifier}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if not as_json:
        console().print(outcome_view(runs))
    raise typer.Exit(exit_code(job))


async def follow_job(client: Client, identifier: UUID, *, as_json: bool = False) -> tuple[Job, list[Run]]:
    """Show the job's events as they come; the job and its runs as they are at the end."""
    progress = JobProgress(await client.job(identifier), [run async for run in client.runs(identifier)])
    with view_for(progress, as_json=as_json) as view:
        async with aclosing(client.events(identifier)) as events:
            async for event in events:
                progress.apply(event)
                view.show(event)
    return await client.job(identifier), [run async for run in client.runs(identifier)]
