"""The commands about jobs that need no live view: list, show, cancel."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from quarterdeck.cli.console import console, local_time, print_json, print_text, table, text
from quarterdeck.cli.ids import job_id, run_id
from quarterdeck.cli.options import AsJson, DataDir, JobArgument, connected
from quarterdeck.cli.outcomes import job_view, state_text
from services.contracts.rest import Job, Run
from services.contracts.words import JobKind, JobState

PROMPT_CHARACTERS = 60


def list_jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[JobKind | None, typer.Option(help="Only jobs of this kind.")] = None,
    repository: Annotated[str | None, typer.Option(help="Only jobs on this repository.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List jobs, the newest first."""

    async def run() -> list[Job]:
        async with connected(data_dir) as client:
            found = client.jobs(state=state, kind=kind, repository=repository, limit=limit)
            return [job async for job in found]

    jobs = asyncio.run(run())
    if as_json:
        print_json(jobs)
    else:
        _print_jobs(jobs)


def _print_jobs(jobs: list[Job]) -> None:
    made = table("job", "state", "runs", "created", "name or prompt")
    for job in jobs:
        title = (job.name or job.prompt).strip().partition("\n")[0]
        made.add_row(
            text(job.id),
            state_text(job.state, job.outcome),
            text(f"{job.runs.completed}/{job.runs.total}"),
            text(local_time(job.created_at)),
            text(title if len(title) <= PROMPT_CHARACTERS else f"{title[:PROMPT_CHARACTERS]} …"),
        )
    console().print(made if jobs else "No jobs.")


def show(job: JobArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a job and its runs."""

    async def run() -> tuple[Job, list[Run]]:
        async with connected(data_dir) as client:
            identifier = await job_id(client, job)
            return await client.job(identifier), [each async for each in client.runs(identifier)]

    found, runs = asyncio.run(run())
    if as_json:
        print_json({"job": found, "runs": runs})
    else:
        console().print(job_view(found, runs))


def cancel(
    job: JobArgument,
    *,
    run: Annotated[str | None, typer.Option(help="Only this run of the job.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Cancel a job, or one of its runs. What was published stays."""

    async def ask() -> Job | Run:
        async with connected(data_dir) as client:
            if run is None:
                return await client.cancel_job(await job_id(client, job))
            return await client.cancel_run(await run_id(client, run))

    cancelled = asyncio.run(ask())
    if as_json:
        print_json(cancelled)
    else:
        print_text(f"{type(cancelled).__name__} {cancelled.id} is {cancelled.state}; cancelling was asked for.")
