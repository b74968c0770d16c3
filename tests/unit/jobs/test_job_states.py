"""What a job's runs make of the job: every mixture of up to three runs, against the table read off the runs."""

import itertools
from collections.abc import Sequence
from enum import Enum, auto

import pytest

from services.contracts.words import JobOutcome, JobState
from services.jobs.states import Tally, job_outcome, job_state


class Fate(Enum):
    """Where one run is, as far as its job cares."""

    UNTOUCHED = auto()
    STARTED = auto()
    COMPLETED = auto()
    FAILED = auto()
    FAILED_UNSTARTED = auto()
    CANCELLED = auto()
    CANCELLED_UNSTARTED = auto()


CANCELLED = {Fate.CANCELLED, Fate.CANCELLED_UNSTARTED}
FAILED = {Fate.FAILED, Fate.FAILED_UNSTARTED}
OPEN = {Fate.UNTOUCHED, Fate.STARTED}
UNSTARTED = {Fate.UNTOUCHED, Fate.FAILED_UNSTARTED, Fate.CANCELLED_UNSTARTED}

MIXTURES = [fates for size in (1, 2, 3) for fates in itertools.combinations_with_replacement(Fate, size)]


def tally_of(fates: Sequence[Fate]) -> Tally:
    return Tally(
        total=len(fates),
        started=sum(fate not in UNSTARTED for fate in fates),
        completed=sum(fate is Fate.COMPLETED for fate in fates),
        failed=sum(fate in FAILED for fate in fates),
        cancelled=sum(fate in CANCELLED for fate in fates),
    )


def expected_state(fates: Sequence[Fate], *, cancel_requested: bool) -> JobState:
    if any(fate in OPEN for fate in fates):
        if cancel_requested:
            return JobState.CANCELLING
        # A run that ended without ever starting has moved its job too.
        return JobState.QUEUED if all(fate is Fate.UNTOUCHED for fate in fates) else JobState.RUNNING
    if cancel_requested and any(fate in CANCELLED for fate in fates):
        return JobState.CANCELLED
    return JobState.COMPLETED if Fate.COMPLETED in fates else JobState.FAILED


@pytest.mark.parametrize("cancel_requested", [False, True])
@pytest.mark.parametrize("fates", MIXTURES, ids=lambda fates: "+".join(fate.name.lower() for fate in fates))
def test_every_mixture_of_runs(fates: tuple[Fate, ...], cancel_requested: bool) -> None:
    state = job_state(tally_of(fates), cancel_requested=cancel_requested)

    assert state is expected_state(fates, cancel_requested=cancel_requested)


@pytest.mark.parametrize("fates", MIXTURES, ids=lambda fates: "+".join(fate.name.lower() for fate in fates))
def test_a_completed_job_is_partial_where_a_run_did_not_complete(fates: tuple[Fate, ...]) -> None:
    tally = tally_of(fates)
    whole = all(fate is Fate.COMPLETED for fate in fates)

    assert job_outcome(tally, JobState.COMPLETED) is (JobOutcome.ALL if whole else JobOutcome.PARTIAL)
    assert all(job_outcome(tally, state) is None for state in JobState if state is not JobState.COMPLETED)
