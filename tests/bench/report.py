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
        details = ", ".join(f"{name} {_number(value)}" for name, value in result.details.items())
        console.print(f"[bold]{result.name}[/bold] ({result.unit}): {details}", highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), style="dim", highlight=False)


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
