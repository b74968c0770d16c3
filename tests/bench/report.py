"""A run's results as a table for people and as JSON for programs. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.measure import Result

_NUMBERS = {"figure", "", "ratio"}
_LONGEST_NAME = 14

Facts = Mapping[str, str | int | float | bool]


def write_json(path: Path, facts: Facts, results: Sequence[Result], failures: Mapping[str, str]) -> None:
    """Write all of a run to ``path``; ``failures``: what went wrong, by measure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measures = [asdict(result) | {"ratio": result.ratio} for result in results]
    content = {"machine": dict(facts), "measures": measures, "failures": dict(failures)}
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def print_report(console: Console, facts: Facts, results: Sequence[Result], failures: Mapping[str, str]) -> None:
    table = Table(title="Quarterdeck, measured", title_justify="left")
    for heading in ("measure", "figure", "compared with, in the same run", "", "ratio", "goal", "met"):
        justify: Literal["left", "right"] = "right" if heading in _NUMBERS else "left"
        table.add_column(heading, justify=justify, overflow="fold", min_width=_LONGEST_NAME if not table.columns else 0)
    for result in results:
        table.add_row(*_row(result))
    for name, words in failures.items():
        table.add_row(name, "failed", words, "", "", "", "[red]no[/red]")
    console.print(table)
    for result in results:
        if result.details:
            details = ", ".join(f"{name} {_number(value)}" for name, value in result.details.items())
            console.print(f"[bold]{result.name}[/bold] ({result.unit}): {details}", highlight=False)
    if any(result.cpu for result in results):
        console.print(_cpu_table(results))
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), style="dim", highlight=False)


def _cpu_table(results: Sequence[Result]) -> Table:
    table = Table(title="Processor milliseconds per 1,000 jobs", title_justify="left")
    processes = list(dict.fromkeys(name for result in results for used in result.cpu.values() for name in used))
    table.add_column("measure")
    table.add_column("whose jobs")
    for name in (*processes, "all"):
        table.add_column(name, justify="right")
    for result in results:
        for whose, used in result.cpu.items():
            figures = [_number(used[name]) if name in used else "" for name in processes]
            table.add_row(result.name, whose, *figures, _number(sum(used.values())))
    return table


def _row(result: Result) -> tuple[str, ...]:
    return (
        f"[bold]{result.name}[/bold]\n{result.what}",
        f"{_number(result.figure)} {result.unit}",
        result.compared_with,
        f"{_number(result.baseline)} {result.unit}",
        f"{result.ratio:.2f}",
        result.goal,
        "[green]yes[/green]" if result.met else "[red]no[/red]",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
