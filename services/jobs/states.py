"""The state machine, pure: which transition may leave which states, and what a job's runs make of the job.

SQL takes its allowed source states from here, and the diagram in `docs/states.md` is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.contracts.words import ChangesetState, JobOutcome, JobState, RunState


class RunTransition(StrEnum):
    ADMIT = "admit"
    """A slot is free: the run is an agent's, for a new attempt with a new lease."""
    RECALL = "recall"
    """Nobody claimed it in time: of what a scheduler of before ADR 20 has left."""
    INTERRUPT = "interrupt"
    """The agent gives the run back; costs no attempt."""
    LOSE = "lose"
    """The lease ran out, taken up or not; costs no attempt."""
    RETRY = "retry"
    """The attempt failed in a way that another may not."""
    PARK = "park"
    """A task waits for its user."""
    WAKE = "wake"
    """The user answered."""
    HAND_OVER = "hand_over"
    """The changeset is stored and its publication queued."""
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Rule:
    sources: frozenset[RunState]
    target: RunState


_ACTIVE = frozenset({RunState.DISPATCHED, RunState.RUNNING, RunState.WAITING, RunState.PUBLISHING})
FINAL_RUN_STATES = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})

RUN_RULES: dict[RunTransition, Rule] = {
    RunTransition.ADMIT: Rule(frozenset({RunState.QUEUED}), RunState.RUNNING),
    RunTransition.RECALL: Rule(frozenset({RunState.DISPATCHED}), RunState.QUEUED),
    RunTransition.INTERRUPT: Rule(frozenset({RunState.RUNNING}), RunState.QUEUED),
    RunTransition.LOSE: Rule(frozenset({RunState.RUNNING}), RunState.QUEUED),
    RunTransition.RETRY: Rule(frozenset({RunState.RUNNING}), RunState.QUEUED),
    RunTransition.PARK: Rule(frozenset({RunState.RUNNING}), RunState.WAITING),
    RunTransition.WAKE: Rule(frozenset({RunState.WAITING}), RunState.QUEUED),
    RunTransition.HAND_OVER: Rule(frozenset({RunState.RUNNING}), RunState.PUBLISHING),
    RunTransition.COMPLETE: Rule(
        frozenset({RunState.RUNNING, RunState.WAITING, RunState.PUBLISHING}), RunState.COMPLETED
    ),
    RunTransition.FAIL: Rule(_ACTIVE | {RunState.QUEUED}, RunState.FAILED),
    # A publishing run may be cancelled only while no vcs has claimed its changeset: the SQL says so too.
    RunTransition.CANCEL: Rule(_ACTIVE | {RunState.QUEUED}, RunState.CANCELLED),
}


class IllegalTransitionError(Exception):
    """A run was asked to make a transition that its state does not allow: a bug, or a lost race to report."""


def after(state: RunState, transition: RunTransition) -> RunState:
    """The state that ``transition`` leads to from ``state``; raises ``IllegalTransitionError``."""
    rule = RUN_RULES[transition]
    if state not in rule.sources:
        raise IllegalTransitionError(f"a run that is {state} cannot {transition}")
    return rule.target


def sources(transition: RunTransition) -> list[str]:
    """The states that ``transition`` may leave, as SQL takes them."""
    return sorted(RUN_RULES[transition].sources)


CHANGESET_RULES: dict[ChangesetState, frozenset[ChangesetState]] = {
    ChangesetState.STORED: frozenset({ChangesetState.QUEUED}),
    ChangesetState.QUEUED: frozenset({ChangesetState.PUSHING, ChangesetState.STORED, ChangesetState.FAILED}),
    ChangesetState.PUSHING: frozenset({ChangesetState.OPEN, ChangesetState.QUEUED, ChangesetState.FAILED}),
    ChangesetState.OPEN: frozenset({ChangesetState.MERGED, ChangesetState.CLOSED}),
    ChangesetState.FAILED: frozenset({ChangesetState.QUEUED}),
    ChangesetState.MERGED: frozenset(),
    ChangesetState.CLOSED: frozenset({ChangesetState.OPEN, ChangesetState.MERGED}),
}


@dataclass(frozen=True)
class Tally:
    """How many of a job's runs are where."""

    total: int
    started: int
    """Ever given to an agent."""
    completed: int
    failed: int
    cancelled: int

    @property
    def final(self) -> int:
        return self.completed + self.failed + self.cancelled


def job_state(tally: Tally, *, cancel_requested: bool) -> JobState:
    """What the runs make of the job: the table in `docs/states.md`."""
    if tally.final == tally.total:
        if cancel_requested and tally.cancelled:
            return JobState.CANCELLED
        return JobState.COMPLETED if tally.completed else JobState.FAILED
    if cancel_requested:
        return JobState.CANCELLING
    return JobState.RUNNING if tally.started or tally.final else JobState.QUEUED


def job_outcome(tally: Tally, state: JobState) -> JobOutcome | None:
    """`partial` where a completed job has runs that did not complete; None unless completed."""
    if state is not JobState.COMPLETED:
        return None
    return JobOutcome.ALL if tally.completed == tally.total else JobOutcome.PARTIAL
