"""The three ways to show a job's events as they come: redrawn on a terminal, as plain lines, as JSON lines."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from quarterdeck.cli.console import console, print_text, text
from quarterdeck.cli.lines import line
from quarterdeck.cli.outcomes import STYLES, state_text
from quarterdeck.cli.progress import JobProgress, RunProgress
from quarterdeck.sse import Event

FRAMES_PER_SECOND = 10
_THOUSAND = 1_000
OTHER_LINES = 6
"""Lines of the terminal that are not for runs: the heading, the rest in words, the prompt below."""


class View(Protocol):
    """Shows events that ``progress`` has already taken; used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None: ...


class _LineView:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""


class JsonView(_LineView):
    """One line of JSON an event, deltas included."""

    def show(self, event: Event) -> None:
        sys.stdout.write(json.dumps(event.as_json()) + "\n")
        sys.stdout.flush()


class PlainView(_LineView):
    """One line a durable event that says something."""

    def __init__(self, progress: JobProgress) -> None:
        self._progress = progress

    def show(self, event: Event) -> None:
        if words := line(event, self._progress.name_of(event)):
            print_text(words)
            sys.stdout.flush()


class LiveView:
    """A bar a repository, redrawn some times a second however many events there are."""

    def __init__(self, progress: JobProgress, out: Console) -> None:
        self._progress = progress
        self._out = out
        self._started = time.monotonic()
        self._live = Live(
            console=out,
            get_renderable=self._render,
            refresh_per_second=FRAMES_PER_SECOND,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        """The next frame shows it."""

    def _render(self) -> RenderableType:
        runs = list(self._progress.runs.values())
        room = max(3, self._out.height - OTHER_LINES)
        kept = runs if len(runs) <= room else sorted(runs, key=_interest)[:room]
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True, max_width=28)
        grid.add_column(width=20)
        grid.add_column(no_wrap=True, min_width=12)
        grid.add_column(no_wrap=True, ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        for run in kept:
            grid.add_row(*_cells(run))
        rest = text(f"… and {len(runs) - len(kept)} more", "dim") if len(kept) < len(runs) else text("")
        return Group(self._heading(runs), grid, rest)

    def _heading(self, runs: list[RunProgress]) -> RenderableType:
        done = sum(run.is_final for run in runs)
        seconds = time.monotonic() - self._started
        heading = state_text(self._progress.state)
        heading.append_text(text(f"  {done}/{len(runs)} done  {seconds:.0f} s  {self._progress.title}"))
        heading.truncate(self._out.width, overflow="ellipsis")
        return heading


def _interest(run: RunProgress) -> int:
    """What moves comes first, then what went wrong, what waits, what is done."""
    if not run.is_final:
        return 2 if run.fraction == 0 else 0
    return 3 if run.state == "completed" else 1


def _cells(run: RunProgress) -> list[RenderableType]:
    failed = run.is_final and run.state != "completed"
    finished = "red" if failed else "green"
    bar = ProgressBar(total=1.0, completed=run.fraction, complete_style="cyan", finished_style=finished)
    tokens = f"{_short_number(run.input_tokens)} in {_short_number(run.output_tokens)} out" if run.turn else ""
    state = state_text(run.state) if run.is_final else text(run.step, STYLES.get(run.state, ""))
    return [text(run.name), bar, state, _activity(run), text(tokens)]


def _activity(run: RunProgress) -> RenderableType:
    words = text(f"{run.step}: {run.activity}" if run.is_final and run.activity else run.activity, "dim")
    words.overflow = "ellipsis"
    return words


def _short_number(number: int) -> str:
    return str(number) if number < _THOUSAND else f"{number / _THOUSAND:.1f}k"


def view_for(progress: JobProgress, *, as_json: bool = False) -> View:
    """The view that suits what stdout is."""
    if as_json:
        return JsonView()
    out = console()
    return LiveView(progress, out) if out.is_terminal else PlainView(progress)
