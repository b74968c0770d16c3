"""Judges what is left once every job is over. Pure: what is judged was read before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from uuid import UUID

from services.contracts.words import ChangesetState, ExitReason, Outcome, RunState
from services.jobs.states import FINAL_RUN_STATES, Tally, job_state
from tests.chaos.checks import Checks, Invariant
from tests.chaos.ending import Branch, ChangesetRow, Ending, JobRow, MessageRow, RunRow
from tests.chaos.event_log import check_events
from tests.chaos.load import GAP, Submission

_FINAL_JOBS = ("completed", "failed", "cancelled")


def check_all(checks: Checks, ending: Ending, submissions: Sequence[Submission]) -> None:
    _check_submissions(checks, ending, submissions)
    _check_jobs(checks, ending)
    _check_runs(checks, ending)
    _check_cancels(checks, ending, submissions)
    _check_transcripts(checks, ending)
    check_events(checks, ending.jobs, ending.events)
    _check_followers(checks, ending, submissions)
    checks.check(Invariant.NO_LEASE, not ending.leases, "; ".join(ending.leases))


def _check_submissions(checks: Checks, ending: Ending, submissions: Sequence[Submission]) -> None:
    by_name: dict[str, list[UUID]] = defaultdict(list)
    for job in ending.jobs:
        by_name[job.name].append(job.id)
    for each in submissions:
        checks.check(Invariant.NOT_REFUSED, not each.refusals, f"{each.name}: {each.refusals}")
        made, answered = by_name[each.name], set(each.answers)
        holds = len(made) <= 1 and answered <= set(made)
        checks.check(Invariant.ONE_JOB, holds, f"{each.name}: answered {_ids(answered)}, there is {_ids(made)}")


def _check_jobs(checks: Checks, ending: Ending) -> None:
    runs: dict[UUID, list[RunRow]] = defaultdict(list)
    for run in ending.runs:
        runs[run.job_id].append(run)
    for job in ending.jobs:
        checks.check(Invariant.FINAL, job.state in _FINAL_JOBS, f"job {job.id} ({job.name}) is {job.state}")
        _check_counters(checks, job, runs[job.id])


def _check_counters(checks: Checks, job: JobRow, runs: list[RunRow]) -> None:
    states = Counter(run.state for run in runs)
    active = sum(states[each] for each in ("dispatched", "running", "waiting", "publishing"))
    tally = Tally(
        total=len(runs),
        started=sum(run.attempt > 0 for run in runs),
        completed=states["completed"],
        failed=states["failed"],
        cancelled=states["cancelled"],
    )
    counted = Tally(job.runs_total, job.runs_started, job.runs_completed, job.runs_failed, job.runs_cancelled)
    checks.check(
        Invariant.COUNTERS,
        counted == tally and job.runs_active == active,
        f"job {job.id}: its row says {counted}, active {job.runs_active}; its runs {tally}, active {active}",
    )
    wanted = job_state(tally, cancel_requested=job.cancel_requested)
    checks.check(Invariant.COUNTERS, job.state == wanted, f"job {job.id} is {job.state}, its runs make it {wanted}")


def _check_runs(checks: Checks, ending: Ending) -> None:
    changesets = {changeset.run_id: changeset for changeset in ending.changesets}
    branches = _named(ending)
    for run in ending.runs:
        final = run.state in FINAL_RUN_STATES and not run.has_lease_token
        checks.check(Invariant.FINAL, final, f"run {run.id} is {run.state}, attempt {run.attempt}: {run.error}")
        expected = run.state != RunState.FAILED or run.exit_reason == ExitReason.LOST
        checks.check(Invariant.NOT_FAILED, expected, f"run {run.id} failed: {run.exit_reason}: {run.error}")
        if run.state == RunState.COMPLETED:
            wrong = _wrong(run, changesets.get(run.id), branches.get((run.repository, run.branch)), ending.wanted_tree)
            checks.check(Invariant.DELIVERED, not wrong, f"run {run.id}: {wrong}")
    _check_strays(checks, ending)


def _named(ending: Ending) -> dict[tuple[str, str], Branch]:
    return {
        (repository, branch.name): branch for repository, branches in ending.branches.items() for branch in branches
    }


def _wrong(run: RunRow, changeset: ChangesetRow | None, branch: Branch | None, wanted_tree: str) -> str:
    """What of a completed run is not as it should be, in words; empty where all is."""
    if run.outcome != Outcome.DELIVERED:
        return f"completed as {run.outcome}, though its repository had something to change"
    if changeset is None or changeset.state != ChangesetState.OPEN or changeset.branch != run.branch:
        return f"its changeset is {changeset}; wanted: open, on {run.branch}"
    if branch is None:
        return f"{run.branch} is not in {run.repository}"
    if branch.commit_sha != changeset.commit_sha:
        return f"{run.branch} is at {branch.commit_sha}, its changeset says {changeset.commit_sha}"
    if branch.parents != (run.base_sha,):
        return f"{run.branch} is not one commit on {run.base_sha}: its parents are {branch.parents}"
    return "" if branch.tree == wanted_tree else f"{branch.commit_sha} holds another change than was asked for"


def _check_strays(checks: Checks, ending: Ending) -> None:
    """A branch that a cancel found pushed already is judged by ``_check_cancels``."""
    runs = {(run.repository, run.branch): run for run in ending.runs}
    for (repository, name), branch in _named(ending).items():
        run = runs.get((repository, name))
        known = run is not None and (run.outcome == Outcome.DELIVERED or run.state == RunState.CANCELLED)
        whose = f"run {run.id}, {run.state}" if run is not None else "no run"
        checks.check(Invariant.NO_STRAY, known, f"{repository} has {name} at {branch.commit_sha}, of {whose}")


def _check_cancels(checks: Checks, ending: Ending, submissions: Sequence[Submission]) -> None:
    jobs = {job.id: job for job in ending.jobs}
    runs = {run.id: run for run in ending.runs}
    for each in submissions:
        if each.job_cancel_accepted and (job := jobs.get(each.answers[0])) is not None:
            words = f"job {job.id}: its cancel was accepted, it is {job.state}"
            checks.check(Invariant.CANCELLED, job.state == RunState.CANCELLED, words)
        if each.run_cancel_accepted is not None and (run := runs.get(each.run_cancel_accepted)) is not None:
            words = f"run {run.id}: its cancel was accepted, it is {run.state}"
            checks.check(Invariant.CANCELLED, run.state == RunState.CANCELLED, words)
    branches = _named(ending)
    for run in ending.runs:
        _check_cancelled_run(checks, run, branches.get((run.repository, run.branch)))


def _check_cancelled_run(checks: Checks, run: RunRow, branch: Branch | None) -> None:
    """Its branch may be there only where it was pushed before anybody asked for the cancel."""
    asked = run.cancel_requested_at
    if asked is None and run.state != RunState.CANCELLED:
        return
    checks.check(
        Invariant.CANCELLED,
        asked is not None and run.state == RunState.CANCELLED,
        f"run {run.id}: its cancel was asked for at {asked}, it is {run.state}",
    )
    if branch is not None and asked is not None:
        words = f"run {run.id}: cancelled at {asked}, {branch.name} pushed at {branch.pushed_at}"
        checks.check(Invariant.CANCELLED, branch.pushed_at <= asked, words)


def _check_transcripts(checks: Checks, ending: Ending) -> None:
    messages: dict[UUID, list[MessageRow]] = defaultdict(list)
    for message in ending.messages:
        messages[message.run_id].append(message)
    for run in ending.runs:
        wrong = _wrong_transcript(run, messages[run.id])
        checks.check(Invariant.TRANSCRIPT, not wrong, f"run {run.id}: {wrong}")


def _wrong_transcript(run: RunRow, messages: list[MessageRow]) -> str:
    attempts = [message.attempt for message in messages]
    answers = sum(message.role == "assistant" for message in messages)
    if [message.number for message in messages] != list(range(1, len(messages) + 1)):
        return f"its messages are numbered {[message.number for message in messages]}"
    if attempts != sorted(attempts) or max(attempts, default=0) > run.attempt:
        return f"its messages are of the attempts {attempts}, the run is at {run.attempt}"
    if any(message.role != ("user", "assistant")[index % 2] for index, message in enumerate(messages)):
        return f"its messages do not take turns: {[message.role for message in messages]}"
    return "" if run.turns == answers else f"{run.turns} turns were paid, {answers} are in the transcript"


def _check_followers(checks: Checks, ending: Ending, submissions: Sequence[Submission]) -> None:
    """A gap is no fault of the log as long as it is said; the numbers behind it must go on rising."""
    last = {job.id: job.last_event_number for job in ending.jobs}
    for each in submissions:
        if each.followed is None:
            continue
        numbers = [number for kind, number in each.followed if kind != GAP]
        has_gap = len(numbers) < len(each.followed)
        # The end of a job ends its stream; what came of its changesets later is not waited for.
        wanted = list(range(1, len(numbers) + 1))
        holds = numbers == sorted(set(numbers)) if has_gap else numbers == wanted
        ended = bool(each.followed) and each.followed[-1][0] == "job.finished"
        words = f"{each.name}: {each.followed[-3:]} of {last.get(each.answers[0])} last; numbers {numbers}"
        checks.check(Invariant.WATCHED, holds and ended, words)


def _ids(ids: Sequence[UUID] | set[UUID]) -> str:
    return ", ".join(sorted(map(str, ids))) or "none"
