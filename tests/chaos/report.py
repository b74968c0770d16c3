"""A run of chaos as tables: the faults injected, the invariants checked, what was broken, and the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.chaos.checks import Checks, Invariant
from tests.chaos.ending import Ending
from tests.chaos.load import Submission
from tests.chaos.plan import FaultKind

_MOST_SHOWN = 8
"""Broken cases of one invariant; the rest are alike, and counted."""


@dataclass(frozen=True)
class Outcome:
    """``ending``: None where the run broke off before it could be read. ``seconds``: the whole of it."""

    seed: int
    seconds: float
    injected: Mapping[tuple[str, FaultKind], int]
    submissions: Sequence[Submission]
    ending: Ending | None
    checks: Checks
    folder: Path
    logged_errors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By service and message."""
    broke_off: str = ""
    """The traceback of what ended the run before its time."""

    @property
    def passed(self) -> bool:
        return self.checks.all_held and not self.broke_off and self.ending is not None


def print_report(console: Console, outcome: Outcome) -> None:
    console.print(_faults(outcome.injected))
    console.print(_invariants(outcome.checks))
    if outcome.logged_errors:
        console.print(_errors(outcome.logged_errors))
    for invariant, cases in outcome.checks.broken.items():
        console.print(f"[red]broken[/red]: {invariant}", highlight=False)
        for case in cases[:_MOST_SHOWN]:
            console.print(f"  {case}", markup=False, highlight=False)
        if len(cases) > _MOST_SHOWN:
            console.print(f"  and {len(cases) - _MOST_SHOWN} more", highlight=False)
    if outcome.broke_off:
        console.print(f"broke off: {outcome.broke_off}", style="red", markup=False, highlight=False)
    console.print(_summary(outcome), markup=False, highlight=False)
    verdict = "[green]passed[/green]" if outcome.passed else f"[red]failed[/red]; logs and data: {outcome.folder}"
    console.print(f"seed {outcome.seed}: {verdict}", highlight=False, soft_wrap=True)


def _faults(injected: Mapping[tuple[str, FaultKind], int]) -> Table:
    table = Table(title="Faults injected", title_justify="left", show_footer=True)
    totals = Counter[FaultKind]()
    for (_, kind), count in injected.items():
        totals[kind] += count
    table.add_column("", footer="all")
    for kind in FaultKind:
        table.add_column(kind.value, justify="right", footer=str(totals[kind]))
    table.add_column("all", justify="right", footer=str(sum(totals.values())))
    for target in sorted({target for target, _ in injected}):
        counts = [injected.get((target, kind), 0) for kind in FaultKind]
        table.add_row(target, *(str(count or "") for count in counts), str(sum(counts)))
    return table


def _invariants(checks: Checks) -> Table:
    table = Table(title="Invariants", title_justify="left")
    table.add_column("")
    table.add_column("checked", justify="right")
    table.add_column("broken", justify="right")
    for invariant in Invariant:
        broken = len(checks.broken.get(invariant, ()))
        table.add_row(invariant.value, str(checks.counts[invariant]), f"[red]{broken}[/red]" if broken else "0")
    return table


def _errors(logged: Mapping[tuple[str, str], int]) -> Table:
    table = Table(title="Errors in the logs (no invariant, but worth a look)", title_justify="left")
    table.add_column("by")
    table.add_column("")
    table.add_column("times", justify="right")
    for (name, message), count in sorted(logged.items(), key=lambda item: -item[1])[:_MOST_SHOWN]:
        table.add_row(name, escape(message), str(count))
    return table


def _summary(outcome: Outcome) -> str:
    """How the load fared, and what the runs came to."""
    sent = outcome.submissions
    cancels = sum(each.job_cancel_accepted or each.run_cancel_accepted is not None for each in sent)
    words = (
        f"{outcome.seconds:.0f} s: {len(sent)} jobs sent, {sum(bool(each.answers) for each in sent)} accepted; "
        f"{cancels} cancels accepted, {sum(each.cancels_refused for each in sent)} refused"
    )
    return words if outcome.ending is None else f"{words}\n{_runs(outcome.ending)}"


def _runs(ending: Ending) -> str:
    came_to = Counter(run.outcome or run.exit_reason or run.state for run in ending.runs)
    told = ", ".join(f"{count} {state}" for state, count in came_to.most_common())
    attempts, lost = (sum(getattr(run, name) for run in ending.runs) for name in ("attempt", "times_lost"))
    return f"{len(ending.runs)} runs: {told}; {attempts} attempts, {lost} of them lost"
