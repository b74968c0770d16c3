"""The commands that steer a job: do it again, speak to it, end its conversation."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from quarterdeck.cli.console import print_json, print_note, print_text
from quarterdeck.cli.ids import job_id, run_id
from quarterdeck.cli.options import (
    AsJson,
    BudgetUsd,
    DataDir,
    JobArgument,
    MaxTurns,
    Model,
    budget,
    connected,
    given,
)
from quarterdeck.cli.watching import watch_to_end
from services.contracts.rest import Job, Message

RunOption = Annotated[str | None, typer.Option(help="Which run; needed where the job has several.")]


def retry(
    job: JobArgument,
    *,
    only_failed: Annotated[bool, typer.Option("--only-failed", help="Only the runs that did not complete.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the old runs' checkpoints.")] = False,
    model: Model = None,
    max_turns: MaxTurns = None,
    budget_usd: BudgetUsd = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay and show how it goes.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Do an ended job again, as a new job; what is not named of its options stays as it was."""
    options = given(model=model, max_turns=max_turns, run_budget=budget(budget_usd))

    async def ask() -> Job:
        async with connected(data_dir) as client:
            old = await job_id(client, job)
            return await client.retry_job(old, only_failed=only_failed, resume=resume, options=options or None)

    new = asyncio.run(ask())
    if watch:
        print_note(f"Job {new.id}")
        watch_to_end(new.id, as_json=as_json, data_dir=data_dir)
    elif as_json:
        print_json(new)
    else:
        print_text(str(new.id))
        print_note(f"See how it goes with: quarterdeck watch {new.id}")


def say(
    job: JobArgument,
    words: Annotated[str, typer.Argument(metavar="TEXT", help="What to say.")],
    *,
    run: RunOption = None,
    interrupt: Annotated[bool, typer.Option("--interrupt", help="Break off what the model is saying.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Say something to a task; one that waits for it goes on."""

    async def ask() -> Message:
        async with connected(data_dir) as client:
            which = await run_id(client, run) if run is not None else None
            return await client.say(await job_id(client, job), words, run_id=which, interrupt=interrupt)

    message = asyncio.run(ask())
    if as_json:
        print_json(message)
    else:
        print_text(f"Run {message.run_id} will read it as message {message.number}.")


def complete(job: JobArgument, *, run: RunOption = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """End a task's conversation."""

    async def ask() -> Job:
        async with connected(data_dir) as client:
            which = await run_id(client, run) if run is not None else None
            return await client.complete_job(await job_id(client, job), run_id=which)

    ended = asyncio.run(ask())
    if as_json:
        print_json(ended)
    else:
        print_text(f"Job {ended.id} is {ended.state}; what an agent holds ends with its turn.")
