"""Write docs/states.md from the state machine in the code; with --check, say whether it is current."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

from services.contracts.words import JobState
from services.jobs.states import CHANGESET_RULES, RUN_RULES, Tally, job_state

TARGET = Path(__file__).parent / "states.md"


def runs() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> queued"]
    for transition, rule in RUN_RULES.items():
        lines += [f"    {source} --> {rule.target}: {transition}" for source in sorted(rule.sources)]
    return [*lines, *(f"    {state} --> [*]" for state in ("completed", "failed", "cancelled")), "```"]


def changesets() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> stored", "    [*] --> queued"]
    for state, targets in CHANGESET_RULES.items():
        lines += [f"    {state} --> {target}" for target in sorted(targets)]
    return [*lines, "```"]


def jobs() -> list[str]:
    """Every way two runs can stand, and what the job is then."""
    found: dict[JobState, list[str]] = {}
    words = {"waiting": Tally(1, 0, 0, 0, 0), "started": Tally(1, 1, 0, 0, 0)} | {
        name: Tally(1, 1, *(int(name == other) for other in ("completed", "failed", "cancelled")))
        for name in ("completed", "failed", "cancelled")
    }
    for (one, a), (two, b) in product(words.items(), repeat=2):
        if one > two:
            continue
        tally = Tally(*(getattr(a, field) + getattr(b, field) for field in Tally.__dataclass_fields__))
        for cancel in (False, True):
            pair = f"{one} + {two}" + (", cancel asked for" if cancel else "")
            found.setdefault(job_state(tally, cancel_requested=cancel), []).append(pair)
    rows = [f"| `{state}` | {'; '.join(found[state])} |" for state in JobState]
    return ["| job | its two runs |", "| --- | --- |", *rows]


def page() -> str:
    parts = [
        ["# States", "", "Made from `services/jobs/states.py` by `make docs`; do not edit.", "", "## A run", ""],
        runs(),
        ["", "From the moment a cancel is accepted (`cancel_requested_at`), `cancel` is the only transition left."],
        ["Nothing leads to `dispatched` any more: it is what a scheduler of before ADR 20 has left.", ""],
        ["## A changeset", ""],
        changesets(),
        ["", "## A job", "", "Its state is what its runs make of it, shown here for a job of two runs.", ""],
        jobs(),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def main() -> int:
    if "--check" in sys.argv[1:]:
        stale = not TARGET.exists() or TARGET.read_text() != page()
        if stale:
            print(f"stale: docs/{TARGET.name}; run `make docs`", file=sys.stderr)
        return int(stale)
    TARGET.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
