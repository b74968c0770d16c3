"""The judge of chaos: content with a good ending, and every way in which one can be bad is found and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.chaos.checks import Checks, Invariant
from tests.chaos.ending import Branch, ChangesetRow, Ending, EventRow, JobRow, MessageRow, RunRow
from tests.chaos.invariants import check_all
from tests.chaos.load import GAP, Submission

JOB, DELIVERED, CANCELLED = UUID(int=1), UUID(int=2), UUID(int=3)
ORIGIN, TREE, BASE, COMMIT = "origin.git", "tree", "base", "commit"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

Change = Callable[[Ending], Ending]


def events() -> list[EventRow]:
    told: list[tuple[UUID | None, int, str, dict[str, str]]] = [
        (None, 0, "job.submitted", {}),
        (DELIVERED, 1, "run.started", {}),
        (None, 0, "job.started", {}),
        (DELIVERED, 1, "run.requeued", {"reason": "unclaimed"}),
        (DELIVERED, 2, "run.started", {}),
        (DELIVERED, 2, "turn.ended", {}),
        (DELIVERED, 2, "run.requeued", {"reason": "lost"}),
        (DELIVERED, 3, "run.started", {}),
        (DELIVERED, 3, "turn.ended", {}),
        (DELIVERED, 3, "run.publishing", {}),
        (DELIVERED, 3, "run.finished", {"state": "completed"}),
        (CANCELLED, 0, "run.finished", {"state": "cancelled"}),
        (None, 0, "job.finished", {"state": "completed"}),
    ]
    return [
        EventRow(JOB, number, run, attempt, kind, data) for number, (run, attempt, kind, data) in enumerate(told, 1)
    ]


def a_run(run_id: UUID, state: str, *, attempt: int, turns: int) -> RunRow:
    return RunRow(
        id=run_id,
        job_id=JOB,
        repository=ORIGIN,
        branch=f"quarterdeck/{run_id.int}",
        base_sha=BASE,
        state=state,
        outcome="delivered" if state == "completed" else None,
        exit_reason=None,
        error=None,
        attempt=attempt,
        times_lost=0,
        turns=turns,
        cancel_requested_at=NOW if state == "cancelled" else None,
        has_lease_token=False,
    )


def good() -> Ending:
    """One job: a run that nobody took up, that was lost once, and then delivered, and one that was cancelled."""
    return Ending(
        jobs=[JobRow(JOB, "chaos 1", "completed", False, 2, 1, 0, 1, 0, 1, len(events()))],
        runs=[a_run(DELIVERED, "completed", attempt=3, turns=2), a_run(CANCELLED, "cancelled", attempt=0, turns=0)],
        changesets=[ChangesetRow(DELIVERED, "open", "quarterdeck/2", COMMIT, 1)],
        messages=[
            MessageRow(DELIVERED, number, (number + 3) // 2, ("user", "assistant")[(number - 1) % 2])
            for number in range(1, 5)
        ],
        events=events(),
        leases=[],
        branches={ORIGIN: [Branch("quarterdeck/2", COMMIT, (BASE,), TREE, NOW)]},
        wanted_tree=TREE,
    )


def submission() -> Submission:
    followed = [(event.kind, event.number) for event in events()]
    return Submission("chaos 1", answers=[JOB, JOB], run_cancel_accepted=CANCELLED, followed=followed)


def broken(ending: Ending, sent: Submission) -> set[Invariant]:
    checks = Checks()
    check_all(checks, ending, [sent])
    assert checks.counts.total() > len(checks.broken)
    return set(checks.broken)


def a_job(**changes: object) -> Change:
    return lambda ending: replace(ending, jobs=[replace(ending.jobs[0], **changes)])  # type: ignore[arg-type]


def the_run(which: int, **changes: object) -> Change:
    def change(ending: Ending) -> Ending:
        runs = list(ending.runs)
        runs[which] = replace(runs[which], **changes)  # type: ignore[arg-type]
        return replace(ending, runs=runs)

    return change


def a_changeset(**changes: object) -> Change:
    return lambda ending: replace(ending, changesets=[replace(ending.changesets[0], **changes)])  # type: ignore[arg-type]


def a_branch(**changes: object) -> Change:
    def change(ending: Ending) -> Ending:
        branch = replace(ending.branches[ORIGIN][0], **changes)  # type: ignore[arg-type]
        return replace(ending, branches={ORIGIN: [branch]})

    return change


def another_branch(name: str, pushed_at: datetime) -> Change:
    def change(ending: Ending) -> Ending:
        added = Branch(name, COMMIT, (BASE,), TREE, pushed_at)
        return replace(ending, branches={ORIGIN: [*ending.branches[ORIGIN], added]})

    return change


def message(which: int, **changes: object) -> Change:
    def change(ending: Ending) -> Ending:
        messages = list(ending.messages)
        messages[which] = replace(messages[which], **changes)  # type: ignore[arg-type]
        return replace(ending, messages=messages)

    return change


def event(which: int, **changes: object) -> Change:
    def change(ending: Ending) -> Ending:
        told = [replace(each, **changes) if each.number == which else each for each in ending.events]  # type: ignore[arg-type]
        return replace(ending, events=told)

    return change


def test_a_good_ending_breaks_nothing():
    assert broken(good(), submission()) == set()


@pytest.mark.parametrize(
    ("change", "invariants"),
    [
        (
            lambda ending: replace(ending, jobs=[*ending.jobs, replace(ending.jobs[0], id=UUID(int=9))]),
            {Invariant.ONE_JOB},
        ),
        (a_job(state="running"), {Invariant.FINAL}),
        (a_job(runs_active=1), {Invariant.COUNTERS}),
        (a_job(runs_completed=2), {Invariant.COUNTERS}),
        (the_run(0, has_lease_token=True), {Invariant.FINAL}),
        (the_run(0, state="failed", outcome=None, exit_reason="internal"), {Invariant.NOT_FAILED}),
        (the_run(0, outcome="no_changes"), {Invariant.DELIVERED}),
        (a_changeset(state="pushing"), {Invariant.DELIVERED}),
        (a_changeset(commit_sha="other"), {Invariant.DELIVERED}),
        (a_branch(parents=("other",)), {Invariant.DELIVERED}),
        (a_branch(parents=(BASE, "other")), {Invariant.DELIVERED}),
        (a_branch(tree="other"), {Invariant.DELIVERED}),
        (a_branch(name="quarterdeck/9"), {Invariant.DELIVERED, Invariant.NO_STRAY}),
        (another_branch("quarterdeck/9", NOW), {Invariant.NO_STRAY}),
        (another_branch("quarterdeck/3", NOW + timedelta(seconds=1)), {Invariant.CANCELLED}),
        (the_run(1, cancel_requested_at=None), {Invariant.CANCELLED}),
        (the_run(0, cancel_requested_at=NOW), {Invariant.CANCELLED}),
        (message(3, number=3), {Invariant.TRANSCRIPT}),
        (message(3, attempt=1), {Invariant.TRANSCRIPT}),
        (message(3, attempt=4), {Invariant.TRANSCRIPT}),
        (message(3, role="user"), {Invariant.TRANSCRIPT}),
        (the_run(0, turns=3), {Invariant.TRANSCRIPT}),
        (a_job(last_event_number=14), {Invariant.NUMBERS}),
        (event(5, number=4), {Invariant.NUMBERS}),
        (event(4, kind="run.publishing"), {Invariant.MOVES}),
        (event(12, data={"state": "completed"}), {Invariant.MOVES}),
        (event(13, kind="job.started"), {Invariant.MOVES}),
        (event(9, attempt=1), {Invariant.FENCED}),
        (event(8, attempt=4), {Invariant.FENCED}),
        (event(4, kind="run.started", attempt=2), {Invariant.MOVES}),  # given to two agents
        (event(4, kind="run.dispatched"), {Invariant.MOVES}),  # of the version before, which told of two moves
        (lambda ending: replace(ending, leases=["run 2 of agent-1"]), {Invariant.NO_LEASE}),
    ],
)
def test_a_bad_ending_is_found(change: Change, invariants: set[Invariant]):
    assert invariants <= broken(change(good()), submission())


def test_what_a_zombie_tells_after_the_end_is_found():
    late = EventRow(JOB, 13, DELIVERED, 3, "tool.ended", {})
    ending = replace(good(), events=[*events(), late])

    assert Invariant.FENCED in broken(ending, submission())


def test_a_changeset_may_tell_after_the_end_of_its_run():
    told = [*events(), EventRow(JOB, 14, DELIVERED, 3, "changeset.pushed", {})]

    assert broken(a_job(last_event_number=14)(replace(good(), events=told)), submission()) == set()


def test_a_branch_pushed_before_its_cancel_is_no_fault():
    assert broken(another_branch("quarterdeck/3", NOW)(good()), submission()) == set()


@pytest.mark.parametrize(
    ("changes", "invariant"),
    [
        ({"answers": [JOB, UUID(int=9)]}, Invariant.ONE_JOB),
        ({"answers": [UUID(int=9)]}, Invariant.ONE_JOB),
        ({"refusals": ["Internal Server Error"]}, Invariant.NOT_REFUSED),
        ({"job_cancel_accepted": True}, Invariant.CANCELLED),
        ({"run_cancel_accepted": DELIVERED}, Invariant.CANCELLED),
        ({"followed": [("job.submitted", 1), ("job.finished", 3)]}, Invariant.WATCHED),
        ({"followed": [("job.submitted", 1), ("job.submitted", 1), ("job.finished", 2)]}, Invariant.WATCHED),
        ({"followed": [("job.submitted", 1), ("run.started", 2)]}, Invariant.WATCHED),
        ({"followed": [("job.submitted", 2), (GAP, 0), ("job.finished", 1)]}, Invariant.WATCHED),
    ],
)
def test_what_a_client_was_told_wrongly_is_found(changes: dict[str, object], invariant: Invariant):
    assert invariant in broken(good(), replace(submission(), **changes))  # type: ignore[arg-type]


def test_a_gap_that_is_said_is_no_fault():
    followed = [("job.submitted", 1), (GAP, 0), ("job.finished", 13)]

    assert broken(good(), replace(submission(), followed=followed)) == set()
