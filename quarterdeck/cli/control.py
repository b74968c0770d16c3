"""The commands that steer: do a job again, speak to it, end its conversation, read and change the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from quarterdeck.cli.console import console, print_json, print_note, print_text, table, text
from quarterdeck.cli.ids import job_id, run_id
from quarterdeck.cli.options import AsJson, DataDir, JobArgument, connected
from quarterdeck.cli.watching import watch_to_end
from services.contracts.rest import Job, Limits, Message

NO_LIMIT = "none"
_SCOPES = {"client": "--client", "repository": "--repository", "queuedJobs": "--queued"}

RunOption = Annotated[str | None, typer.Option(help="Which run; needed where the job has several.")]
Named = Annotated[list[str] | None, typer.Option(help="NAME=SLOTS, or `default=SLOTS`; may be repeated.")]


def retry(
    job: JobArgument,
    *,
    only_failed: Annotated[bool, typer.Option("--only-failed", help="Only the runs that did not complete.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the old runs' checkpoints.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay and show how it goes.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Do an ended job again, as a new job."""

    async def ask() -> Job:
        async with connected(data_dir) as client:
            return await client.retry_job(await job_id(client, job), only_failed=only_failed, resume=resume)

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


def limits(
    *,
    fleet: Annotated[str | None, typer.Option(help="Slots in all, or `none`.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="code=SLOTS, task=…, review=…; may be repeated.")] = None,
    client: Named = None,
    repository: Named = None,
    queued: Named = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show how many runs may hold a slot at once; with options, change what they name and nothing else.

    SLOTS is a number, or `none` for no limit. --queued bounds how many jobs a client may have waiting.
    """
    changes = {"queues": queue, "client": client, "repository": repository, "queuedJobs": queued}

    async def ask() -> Limits:
        async with connected(data_dir) as connection:
            now = await connection.limits()
            if fleet is None and not any(changes.values()):
                return now
            return await connection.set_limits(_changed(now, fleet, changes))

    found = asyncio.run(ask())
    if as_json:
        print_json(found)
    else:
        _print_limits(found)


def _changed(now: Limits, fleet: str | None, changes: dict[str, list[str] | None]) -> Limits:
    document: dict[str, Any] = now.model_dump(mode="json", by_alias=True)
    if fleet is not None:
        document["fleet"] = _slots("--fleet", fleet)
    for name, slots in _pairs("--queue", changes["queues"] or ()):
        if name not in document["queues"]:
            raise typer.BadParameter(f"--queue {name}: there are the queues {', '.join(document['queues'])}")
        document["queues"][name] = slots
    for scope, option in _SCOPES.items():
        for name, slots in _pairs(option, changes[scope] or ()):
            if name == "default":
                document[scope]["default"] = slots
            elif slots is None:
                document[scope]["byName"].pop(name, None)
            else:
                document[scope]["byName"][name] = slots
    return Limits.model_validate(document)


def _pairs(option: str, given: Sequence[str]) -> list[tuple[str, int | None]]:
    pairs = []
    for each in given:
        name, separator, slots = each.rpartition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{option} {each}: must be NAME=SLOTS")
        pairs.append((name, _slots(option, slots)))
    return pairs


def _slots(option: str, given: str) -> int | None:
    if given == NO_LIMIT:
        return None
    if not given.isdecimal():
        raise typer.BadParameter(f"{option} {given}: must be a number, or `{NO_LIMIT}`")
    return int(given)


def _print_limits(found: Limits) -> None:
    made = table("of", "slots")
    rows: list[tuple[str, int | None]] = [("the fleet", found.fleet)]
    rows += [(f"queue {name}", slots) for name, slots in dict(found.queues).items()]
    named = {"client": found.client, "repository": found.repository, "queued jobs of client": found.queued_jobs}
    for what, scope in named.items():
        rows += [(f"{what}, each", scope.default), *((f"{what} {name}", n) for name, n in scope.by_name.items())]
    for what, slots in rows:
        made.add_row(text(what), text("no limit" if slots is None else str(slots)))
    console().print(made)
