"""Judges one job's durable events: their numbers, the moves that they tell of, and who told them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from services.contracts.words import RunState
from services.jobs.states import FINAL_RUN_STATES, RUN_RULES
from tests.chaos.checks import Checks, Invariant
from tests.chaos.ending import EventRow, JobRow

_MOVES = {
    "run.dispatched": RunState.DISPATCHED,
    "run.started": RunState.RUNNING,
    "run.requeued": RunState.QUEUED,
    "run.waiting": RunState.WAITING,
    "run.publishing": RunState.PUBLISHING,
}
"""Nothing becomes `dispatched` any more: whoever tells that is found."""
_FINISHED = "run.finished"
_OF_ATTEMPTS = ("run.prepared", "turn.", "tool.", "file.")
"""Kinds, by how they begin, that only the attempt tells which holds the run."""
_AFTER_THE_END = "changeset."


def check_events(checks: Checks, jobs: Sequence[JobRow], events: Sequence[EventRow]) -> None:
    """``events``: of all jobs, those of each in order of their numbers."""
    by_job: dict[UUID, list[EventRow]] = defaultdict(list)
    for event in events:
        by_job[event.job_id].append(event)
    for job in jobs:
        _check_job(checks, job, by_job[job.id])


def _check_job(checks: Checks, job: JobRow, events: list[EventRow]) -> None:
    numbers = [event.number for event in events]
    wanted = list(range(1, job.last_event_number + 1))
    checks.check(Invariant.NUMBERS, numbers == wanted, f"job {job.id}: {_differences(numbers, wanted)}")
    ends = [event.data.get("state") for event in events if event.kind == "job.finished"]
    checks.check(Invariant.MOVES, ends == [job.state], f"job {job.id} is {job.state}, its log says finished: {ends}")
    by_run: dict[UUID, list[EventRow]] = defaultdict(list)
    for event in events:
        if event.run_id is not None:
            by_run[event.run_id].append(event)
    for run_id, told in by_run.items():
        _check_run(checks, run_id, told)


def _check_run(checks: Checks, run_id: UUID, events: list[EventRow]) -> None:
    """Follow the run through its log."""
    state, attempt = RunState.QUEUED, 0
    for event in events:
        where = f"run {run_id}, event {event.number} ({event.kind}, attempt {event.attempt})"
        target = _target(event)
        if target is not None:
            checks.check(Invariant.MOVES, _may_become(state, target), f"{where}: came to a run that was {state}")
            state = target
            if state is RunState.RUNNING:
                checks.check(Invariant.FENCED, event.attempt == attempt + 1, f"{where}: came after attempt {attempt}")
                attempt = event.attempt
        elif event.kind.startswith(_OF_ATTEMPTS):
            holds = state is RunState.RUNNING and event.attempt == attempt
            checks.check(Invariant.FENCED, holds, f"{where}: the run was {state} at attempt {attempt}")
        elif not event.kind.startswith(_AFTER_THE_END):
            checks.check(Invariant.MOVES, state not in FINAL_RUN_STATES, f"{where}: came after the run was {state}")
    checks.check(Invariant.MOVES, state in FINAL_RUN_STATES, f"run {run_id}: its log ends while it is {state}")


def _target(event: EventRow) -> RunState | None:
    """The state that the event tells of; None where it tells of no move."""
    return RunState(event.data["state"]) if event.kind == _FINISHED else _MOVES.get(event.kind)


def _may_become(state: RunState, target: RunState) -> bool:
    return any(state in rule.sources and rule.target is target for rule in RUN_RULES.values())


def _differences(numbers: list[int], wanted: list[int]) -> str:
    missing = sorted(set(wanted) - set(numbers))
    extra = sorted(set(numbers) - set(wanted))
    return f"{len(numbers)} events, {len(wanted)} by its row; missing {missing[:10]}, not its own {extra[:10]}"
