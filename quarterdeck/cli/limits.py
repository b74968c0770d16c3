"""The commands `limits` and `limits set`: the first only reads, the second writes back all but what it was told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from quarterdeck.cli.console import console, print_json, table, text
from quarterdeck.cli.options import AsJson, DataDir, connected, is_alone
from services.contracts.limits import Limits, QueueLimits

NO_LIMIT = "none"
DEFAULT = "default"

Slots = int | None
Named = Annotated[list[str] | None, typer.Option(help="NAME=SLOTS, or `default=SLOTS`; may be repeated.")]

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Show how many runs may hold a slot at once; `limits set` changes it.",
)


@app.callback()
def show(context: typer.Context, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show how many runs may hold a slot at once; `limits set` changes it."""
    if is_alone(context, as_json=as_json, data_dir=data_dir):
        _print(asyncio.run(_read(data_dir)), as_json=as_json)


async def _read(data_dir: Path | None) -> Limits:
    async with connected(data_dir) as client:
        return await client.limits()


@app.command("set")
def replace(
    *,
    fleet: Annotated[str | None, typer.Option(help="Slots in all.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="code=SLOTS, task=…, review=…; may be repeated.")] = None,
    client: Named = None,
    repository: Named = None,
    queued: Named = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Change the limits that are named, and no other; for operators.

    SLOTS is a number, or `none` for no limit. --client and --repository are by name and URL; --queued is how many jobs
    a client may have waiting.
    """
    change = Change(
        fleet={"fleet": _slots("--fleet", fleet)} if fleet is not None else {},
        queues=_pairs("--queue", queue),
        named={
            "client": _pairs("--client", client),
            "repository": _pairs("--repository", repository),
            "queuedJobs": _pairs("--queued", queued),
        },
    )
    _print(asyncio.run(_change(change, data_dir)), as_json=as_json)


async def _change(change: Change, data_dir: Path | None) -> Limits:
    async with connected(data_dir) as client:
        return await client.set_limits(change.of(await client.limits()))


@dataclass(frozen=True)
class Change:
    """What was asked for, by the API's names. Raises a usage error where that is nothing, or cannot be."""

    fleet: dict[str, Slots]
    queues: dict[str, Slots]
    named: dict[str, dict[str, Slots]]

    def __post_init__(self) -> None:
        if not (self.fleet or self.queues or any(self.named.values())):
            raise typer.BadParameter("name at least one limit: see `quarterdeck limits set --help`")
        for name in self.queues:
            if name not in QueueLimits.model_fields:
                raise typer.BadParameter(f"--queue {name}: there are the queues {', '.join(QueueLimits.model_fields)}")

    def of(self, now: Limits) -> Limits:
        """``now`` with what was named in its place. Raises a usage error for a number that is out of range."""
        document: dict[str, Any] = now.model_dump(mode="json", by_alias=True) | self.fleet
        document["queues"] |= self.queues
        for scope, asked in self.named.items():
            # Only what was asked for: a client may be called `default` itself, and have a limit by that name.
            document[scope]["default"] = asked.get(DEFAULT, document[scope]["default"])
            slots = document[scope]["byName"] | {name: asked[name] for name in asked if name != DEFAULT}
            document[scope]["byName"] = {name: number for name, number in slots.items() if number is not None}
        try:
            return Limits.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise typer.BadParameter(f"{where} {first['input']}: {first['msg']}") from error


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, Slots]:
    pairs = {}
    for each in given or ():
        name, _, slots = each.rpartition("=")
        if not name:
            raise typer.BadParameter(f"{option} {each}: must be NAME=SLOTS")
        pairs[name] = _slots(option, slots)
    return pairs


def _slots(option: str, given: str) -> Slots:
    if given == NO_LIMIT:
        return None
    if not given.isdecimal():
        raise typer.BadParameter(f"{option} {given}: must be a number, or `{NO_LIMIT}`")
    return int(given)


def _print(found: Limits, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows: list[tuple[str, Slots]] = [("the fleet", found.fleet)]
    rows += [(f"queue {name}", slots) for name, slots in dict(found.queues).items()]
    named = {"client": found.client, "repository": found.repository, "queued jobs of client": found.queued_jobs}
    for what, scope in named.items():
        rows += [(f"{what}, each", scope.default), *((f"{what} {name}", n) for name, n in scope.by_name.items())]
    made = table("of", "slots")
    for what, slots in rows:
        made.add_row(text(what), text("no limit" if slots is None else str(slots)))
    console().print(made)
