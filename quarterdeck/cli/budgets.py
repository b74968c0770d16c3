"""The commands `budgets`, `budgets set` and `usage`: what may be used, and what was."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from quarterdeck.cli.console import console, print_json, print_note, table, text
from quarterdeck.cli.options import AsJson, DataDir, connected, is_alone
from services.contracts.agents import Budget
from services.contracts.spending import Budgets, UsageReport

NO_LIMIT = "none"
DEFAULT = "default"
_AMOUNT = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>usd|tokens)?", re.ASCII)

Named = Annotated[
    list[str] | None, typer.Option(help="NAME=AMOUNT, or `default=AMOUNT` for all others; may be repeated.")
]
_DAY_FORMATS = ["%Y-%m-%d"]

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Show what may be used over more than one job; `budgets set` changes it.",
)


@app.callback()
def show(context: typer.Context, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show what may be used over more than one job; `budgets set` changes it."""
    if is_alone(context, as_json=as_json, data_dir=data_dir):
        _print(asyncio.run(_read(data_dir)), as_json=as_json)


async def _read(data_dir: Path | None) -> Budgets:
    async with connected(data_dir) as client:
        return await client.budgets()


@app.command("set")
def replace(
    *,
    day: Annotated[str | None, typer.Option(help="Of all clients together, each UTC day.")] = None,
    client: Named = None,
    client_day: Named = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Change the budgets that are named, and no other; for operators.

    AMOUNT is USD and tokens, such as `20`, `20usd`, `5000000tokens` or `20,5000000tokens`, or `none` for no limit.
    --client is for all time, --client-day for each UTC day; NAME=default takes a client's own budget away.
    """
    change = Change(
        day={DEFAULT: _budget("--day", day)} if day is not None else {},
        named={"client": _pairs("--client", client), "clientDay": _pairs("--client-day", client_day)},
    )
    _print(asyncio.run(_change(change, data_dir)), as_json=as_json)


async def _change(change: Change, data_dir: Path | None) -> Budgets:
    async with connected(data_dir) as client:
        return await client.set_budgets(change.of(await client.budgets()))


def usage(
    *,
    first_day: Annotated[
        datetime | None, typer.Option("--from", formats=_DAY_FORMATS, help="The first UTC day, such as 2026-01-31.")
    ] = None,
    last_day: Annotated[datetime | None, typer.Option("--to", formats=_DAY_FORMATS, help="The last UTC day.")] = None,
    client: Annotated[str | None, typer.Option(help="Another client's, by its name; for operators.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show tokens and USD by UTC day, and what the budgets leave for today; the last 30 days by default."""

    async def read() -> UsageReport:
        async with connected(data_dir) as connection:
            first, last = (day.date() if day else None for day in (first_day, last_day))
            return await connection.usage(first_day=first, last_day=last, client=client)

    _print_usage(asyncio.run(read()), as_json=as_json)


@dataclass(frozen=True)
class Change:
    """What was asked for, by the API's names; None: a client's own budget is taken away."""

    day: Mapping[str, Budget | None]
    named: Mapping[str, Mapping[str, Budget | None]]

    def __post_init__(self) -> None:
        if not (self.day or any(self.named.values())):
            raise typer.BadParameter("name at least one budget: see `quarterdeck budgets set --help`")

    def of(self, now: Budgets) -> Budgets:
        """``now`` with what was named in its place."""
        document: dict[str, Any] = now.model_dump(mode="json", by_alias=True)
        if DEFAULT in self.day:
            document["day"] = _json(self.day[DEFAULT])
        for scope, asked in self.named.items():
            # Only what was asked for: a client may be called `default` itself, and have a budget by that name.
            if DEFAULT in asked:
                document[scope]["default"] = _json(asked[DEFAULT])
            own = document[scope]["byName"] | {name: _json(asked[name]) for name in asked if name != DEFAULT}
            document[scope]["byName"] = {name: budget for name, budget in own.items() if budget is not None}
        return Budgets.model_validate(document)


def _json(budget: Budget | None) -> dict[str, Any] | None:
    return None if budget is None else budget.model_dump(mode="json", by_alias=True)


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, Budget | None]:
    pairs: dict[str, Budget | None] = {}
    for each in given or ():
        name, _, amount = each.rpartition("=")
        if not name:
            raise typer.BadParameter(f"{option} {each}: must be NAME=AMOUNT")
        takes_away = amount == DEFAULT and name != DEFAULT
        pairs[name] = None if takes_away else _budget(option, amount)
    return pairs


def _budget(option: str, given: str) -> Budget:
    """From `20`, `20usd`, `5000tokens`, both with a comma between, or `none`. Raises a usage error."""
    if given == NO_LIMIT:
        return Budget()
    amounts: dict[str, float] = {}
    for part in given.split(","):
        found = _AMOUNT.fullmatch(part.strip())
        unit = (found["unit"] or "usd") if found else ""
        if not found or unit in amounts or (unit == "tokens" and "." in found["number"]):
            raise typer.BadParameter(
                f"{option} {given}: must be such as `20`, `20usd`, `5000000tokens`, `20,5000000tokens`, or `{NO_LIMIT}`"
            )
        amounts[unit] = int(found["number"]) if unit == "tokens" else float(found["number"])
    try:
        return Budget.model_validate(amounts)
    except ValidationError as error:
        raise typer.BadParameter(f"{option} {given}: {error.errors()[0]['msg']}") from error


def _print(found: Budgets, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [("all clients, each day", found.day)]
    for when, scope in (("in all", found.client), ("each day", found.client_day)):
        rows.append((f"each client, {when}", scope.default))
        rows += [(f"client {name}, {when}", budget) for name, budget in scope.by_name.items()]
    made = table("of", "USD", "tokens")
    for what, budget in rows:
        made.add_row(text(what), *_amounts(budget or Budget(), "no limit"))
    console().print(made)


def _print_usage(report: UsageReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    made = table("day (UTC)", "USD", "tokens")
    for day in report.days:
        made.add_row(text(day.day), text(f"{day.usd:,.4f}"), text(f"{day.tokens:,}"))
    made.add_section()
    made.add_row(text("total"), text(f"{report.total.usd:,.4f}"), text(f"{report.total.tokens:,}"))
    console().print(made)
    usd, tokens = _amounts(report.left_today, "no limit of")
    print_note(f"{report.client}, {report.first_day} to {report.last_day}; left today: {usd} USD, {tokens} tokens")


def _amounts(budget: Budget, none: str) -> tuple[str, str]:
    usd = none if budget.usd is None else f"{budget.usd:,.6g}"
    return usd, none if budget.tokens is None else f"{budget.tokens:,}"
