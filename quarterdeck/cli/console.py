"""What reaches the terminal: every text of a server's is made visible first, and none of it is markup."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.contracts.text import shown

PIPE_WIDTH = 400
"""Columns where the output is no terminal: wide enough that no cell of a table is cut."""


def console(*, stderr: bool = False) -> Console:
    """A console on what stdout (stderr) is now."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made


def text(value: object, style: str = "") -> Text:
    """Foreign text as it may be shown; None is a dash."""
    return Text("-" if value is None else shown(str(value)), style=style)


def print_text(value: str) -> None:
    """Foreign text on stdout as it is, but for control characters."""
    sys.stdout.write(shown(value if value.endswith("\n") else f"{value}\n"))


def print_json(value: BaseModel | list[Any] | dict[str, Any]) -> None:
    """One document; ASCII, so that nothing in it can steer a terminal."""
    sys.stdout.write(json.dumps(as_json(value), indent=2) + "\n")


def as_json(value: Any) -> Any:
    """``value`` with its models as plain JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return value


def print_error(message: str) -> None:
    """One clear word on stderr."""
    error = console(stderr=True)
    error.print(Text("Error: ", style="bold red"), text(message), sep="", soft_wrap=True)


def print_note(message: str) -> None:
    """What is for the person at the terminal, not for the program behind a pipe."""
    console(stderr=True).print(text(message), soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the one look that all have."""
    made = Table(*columns, box=SIMPLE_HEAD, title=text(title) if title else None, title_justify="left", pad_edge=False)
    for column in made.columns:
        column.overflow = "fold"
    return made


def fields(rows: Mapping[str, object]) -> Table:
    """Names and values, a line each; what is None is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            grid.add_row(name, value if isinstance(value, Text) else text(value))
    return grid


def local_time(moment: datetime | None) -> str | None:
    """A moment in the reader's own time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None
