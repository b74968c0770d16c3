"""What must be true of jobs, runs, changesets, leases and events whatever was done to them: looked at after every step.

Reads the tables by itself, so that the domain cannot hide a fault of its own.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

from services.contracts.words import ChangesetState, EventKind, Queue, RunState
from services.jobs import states
from services.jobs.limits import Limits, limits_of
from services.jobs.states import CHANGESET_RULES, FINAL_RUN_STATES, RunTransition, Tally
from services.runtime.postgres import Database, Record
from tests.integration.jobs.sequences import SEQUENCED

ACTIVE = ("running", "waiting", "publishing")
FINAL = tuple(state.value for state in FINAL_RUN_STATES)
TO_PUSH = ("queued", "pushing")
SHOWN = ("open", "merged", "closed")
KEPT_BY_AN_UNTAKEN_RUN = (
    *("attempt", "attempts_spent", "times_lost", "turns", "queue_deadline", "not_before", "head", "base_sha"),
    *("exit_reason", "error"),
)
WORDS_OF_A_FINAL_JOB = (
    *("state", "outcome", "runs_total", "runs_started", "runs_active", "runs_completed"),
    *("runs_failed", "runs_cancelled", "started_at", "finished_at"),
)
_READ = {
    "jobs": "SELECT * FROM jobs ORDER BY id",
    "runs": "SELECT r.*, EXISTS (SELECT FROM inbox i WHERE i.run_id = r.id AND i.read_at IS NULL) AS has_unread "
    "FROM runs r ORDER BY id",
    "changesets": "SELECT * FROM changesets ORDER BY id",
    "leases": "SELECT * FROM leases",
    "clients": "SELECT * FROM clients",
}
_READ_LIVING = "SELECT name FROM nodes WHERE seen_at > now() - interval '3 seconds'"
"""For longer than a sweep takes to come by and look at it itself."""
_READ_EVENTS = f"""SELECT id, job_id, number, place AS sequence, run_id, attempt, kind, data ->> 'reason' AS reason,
    data ->> 'state' AS state FROM {SEQUENCED} e ORDER BY job_id, number"""
_REQUEUED_BY = {
    "unclaimed": RunTransition.LOSE,
    "interrupted": RunTransition.INTERRUPT,
    "lost": RunTransition.LOSE,
    "retry": RunTransition.RETRY,
    "message": RunTransition.WAKE,
}
_FINISHED_BY = {
    "completed": RunTransition.COMPLETE,
    "failed": RunTransition.FAIL,
    "cancelled": RunTransition.CANCEL,
}
_MOVED_BY = {
    EventKind.RUN_STARTED: RunTransition.ADMIT,
    EventKind.RUN_WAITING: RunTransition.PARK,
    EventKind.RUN_PUBLISHING: RunTransition.HAND_OVER,
}


@dataclass(frozen=True)
class Look:
    """All that is stored at one moment, while nobody writes."""

    jobs: dict[UUID, Record] = field(default_factory=dict)
    runs: dict[UUID, Record] = field(default_factory=dict)
    changesets: dict[UUID, Record] = field(default_factory=dict)
    leases: dict[UUID, Record] = field(default_factory=dict)
    living: set[str] = field(default_factory=set)
    """The agents whose heartbeat was seen within the last seconds."""
    clients: dict[UUID, Record] = field(default_factory=dict)
    events: list[Record] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    assigned: int = 0
    """The last sequence that was given out."""

    def runs_of(self, job_id: UUID) -> list[Record]:
        return [run for run in self.runs.values() if run["job_id"] == job_id]

    def is_untaken(self, run: Record) -> bool:
        """Whether it is an agent's that has not taken it up yet."""
        lease = self.leases.get(run["id"])
        return lease is not None and not lease["taken"]

    def changeset_of(self, run_id: UUID) -> Record | None:
        return next((each for each in self.changesets.values() if each["run_id"] == run_id), None)


async def look(database: Database) -> Look:
    async with asyncio.timeout(30), database.connection() as connection:
        rows = {name: await connection.fetch(statement) for name, statement in _READ.items()}
        return Look(
            **{name: {row["id"]: row for row in found} for name, found in rows.items()},
            events=await connection.fetch(_READ_EVENTS),
            living={row["name"] for row in await connection.fetch(_READ_LIVING)},
            limits=limits_of(await connection.fetch("SELECT scope, name, slots FROM limits")),
            assigned=await connection.fetchval("SELECT assigned FROM event_cursor"),
        )


class Watcher:
    """Compares each look with the one before, and remembers what was final."""

    def __init__(self) -> None:
        self.before = Look()
        self._final: dict[UUID, dict[str, Any]] = {}
        self._cancelled_at: dict[UUID, int] = {}
        """How many events the job had when a run's cancel was first seen to be accepted."""

    def check(self, now: Look, *, places: Mapping[str, int], begun: Collection[UUID]) -> None:
        """Compare ``now`` with all seen before; an ``AssertionError`` says what is wrong with which.

        ``places``: how many runs each agent could hold when runs were last given to them. ``begun``: tokens of orders
        that were begun with at once.
        """
        _check_holders(now)
        _check_branches(now)
        _check_jobs(now)
        _check_cancels(now)
        _check_limits(self.before, now, places)
        _check_untaken(self.before, now, begun)
        _check_changesets(self.before, now)
        _check_numbers(now)
        _check_sequences(now)
        _check_stories(now)
        self._check_final(now)
        self._check_cancelled(now)
        self.before = now

    def _check_final(self, now: Look) -> None:
        for run in now.runs.values():
            if run["state"] in FINAL:
                # All of it: nobody has anything to write to a run that has ended.
                self._stays(run["id"], dict(run) | {"has_unread": None})
        for job in now.jobs.values():
            if job["finished_at"] is not None:
                self._stays(job["id"], {name: job[name] for name in WORDS_OF_A_FINAL_JOB})
        assert self._final.keys() <= now.runs.keys() | now.jobs.keys(), "something final has vanished"

    def _stays(self, identifier: UUID, row: dict[str, Any]) -> None:
        final = self._final.setdefault(identifier, row)
        assert row == final, f"{identifier} changed although it is final:\n{final}\n{row}"

    def _check_cancelled(self, now: Look) -> None:
        """Nothing but its end happens to a run whose cancel was accepted."""
        asked = {event["job_id"]: event["number"] for event in now.events if event["kind"] == "job.cancel_requested"}
        for run in now.runs.values():
            if run["cancel_requested_at"] is None:
                continue
            job_id = run["job_id"]
            at = self._cancelled_at.setdefault(run["id"], now.jobs[job_id]["last_event_number"])
            since = min(at, asked.get(job_id, at))
            later = [_word(event) for event in now.events if event["run_id"] == run["id"] and event["number"] > since]
            assert later in ([], ["run.finished cancelled"]), f"{run['id']} went on after its cancel: {later}"


def _check_holders(now: Look) -> None:
    """One holder at most: who holds a run or changeset has its token and a lease with the same, and nobody else any."""
    running = {run["id"]: ("run", run["lease_token"]) for run in now.runs.values() if run["state"] == "running"}
    pushing = {
        each["id"]: ("changeset", each["lease_token"]) for each in now.changesets.values() if each["state"] == "pushing"
    }
    leased = {lease["id"]: (lease["kind"], lease["token"]) for lease in now.leases.values()}
    different = dict(leased.items() ^ (running | pushing).items())
    assert not different, f"a lease without a holder, or a holder without a lease: {different}"
    strangers = [run_id for run_id in running if now.leases[run_id]["holder"] != now.runs[run_id]["agent"]]
    assert not strangers, f"held by another agent than they were given to: {strangers}"
    tokens = [run["id"] for run in now.runs.values() if run["lease_token"] is not None]
    assert sorted(tokens) == sorted(running), (
        "a run has a token although nobody runs it, or none although somebody does"
    )
    slept = [run["id"] for run in now.runs.values() if run["state"] == "waiting" and run["has_unread"]]
    assert not slept, f"waiting although something unread is there: {slept}"


def _check_branches(now: Look) -> None:
    places = Counter((run["repository"], run["branch"]) for run in now.runs.values() if run["state"] in ACTIVE)
    crowded = {place for place, runs in places.items() if place[0] is not None and runs > 1}
    assert not crowded, f"more than one active run on {crowded}"


def _check_jobs(now: Look) -> None:
    """A job's counters equal its runs, and its state is what they make of it."""
    for job in now.jobs.values():
        runs = now.runs_of(job["id"])
        in_state = Counter(run["state"] for run in runs)
        active = sum(in_state[state] for state in ACTIVE)
        tally = Tally(
            total=len(runs),
            started=sum(run["attempt"] > 0 for run in runs),
            completed=in_state["completed"],
            failed=in_state["failed"],
            cancelled=in_state["cancelled"],
        )
        counters = {
            **{f"runs_{name}": getattr(tally, name) for name in ("total", "started", "completed", "failed")},
            "runs_cancelled": tally.cancelled,
            "runs_active": active,
        }
        assert {name: job[name] for name in counters} == counters, f"{job['id']} miscounts {dict(in_state)}"
        state = states.job_state(tally, cancel_requested=job["cancel_requested_at"] is not None)
        outcome = states.job_outcome(tally, state)
        assert (job["state"], job["outcome"]) == (state, outcome), f"{job['id']} does not follow from {dict(in_state)}"
        assert job["max_parallel"] is None or active <= job["max_parallel"], f"{job['id']} runs more than maxParallel"


def _check_cancels(now: Look) -> None:
    """The cancel of a job is one of all its runs that have not ended, but for what is being pushed at the moment."""
    for run in now.runs.values():
        if now.jobs[run["job_id"]]["cancel_requested_at"] is None or run["state"] in FINAL:
            continue
        changeset = now.changeset_of(run["id"])
        is_pushed = changeset is not None and changeset["state"] == "pushing"
        assert run["cancel_requested_at"] is not None or is_pushed, f"{run['id']} goes on although its job is cancelled"


def _check_limits(before: Look, now: Look, places: Mapping[str, int]) -> None:
    """Where a slot was given, no more are held than the limits in force allow, and than the agent has places; both may
    have been lowered since.
    """
    holders = [run for run in now.runs.values() if run["state"] == "running"]
    new = [
        run for run in holders if run["id"] not in before.runs or before.runs[run["id"]]["dispatch"] < run["dispatch"]
    ]
    limits = now.limits
    is_over = bool(new) and limits.fleet is not None and len(holders) > limits.fleet
    assert not is_over, f"the fleet may hold {limits.fleet}, and holds {len(holders)}"
    for run in new:
        client = now.clients[run["client_id"]]["name"]
        for column, limit in (
            ("agent", places.get(run["agent"], 0)),
            ("queue", limits.queues.get(Queue(run["queue"]))),
            ("client_id", limits.of_client(client)),
            ("repository", limits.of_repository(run["repository"]) if run["repository"] else None),
        ):
            held = sum(other[column] == run[column] for other in holders)
            assert limit is None or held <= limit, f"{column} {run[column]} may hold {limit}, and holds {held}"


def _check_untaken(before: Look, now: Look, begun: Collection[UUID]) -> None:
    """A run that its agent has not taken up is queued again as it was, if that agent lives: nothing is counted."""
    told = Counter(event["run_id"] for event in before.events)
    for run in before.runs.values():
        back = now.runs[run["id"]]
        if not before.is_untaken(run) or back["state"] != "queued" or run["lease_token"] in begun:
            continue
        events = [event for event in now.events if event["run_id"] == run["id"]][told[run["id"]] :]
        words = [_word(event) for event in events]
        if run["agent"] in now.living:
            assert "run.requeued lost" not in words, f"{run['id']} was lost before its agent had taken it up"
        if words != ["run.requeued unclaimed"]:
            continue  # its agent has taken it up, and given it back
        kept = {name: run[name] for name in KEPT_BY_AN_UNTAKEN_RUN}
        assert {name: back[name] for name in kept} == kept, f"{run['id']} is not as it was before it was given away"
        is_over = run["queue_deadline"] is not None and run["queue_deadline"] < datetime.now(UTC)
        assert not is_over, f"{run['id']} is queued again although it may not be any longer"
        assert back["time_left"] == run["run_deadline"] - run["dispatched_at"], f"{run['id']} has lost time to work"


def _check_changesets(before: Look, now: Look) -> None:
    for each in now.changesets.values():
        was = before.changesets.get(each["id"])
        if was is not None and was["state"] != each["state"]:
            reachable = _reachable(ChangesetState(was["state"]))
            assert each["state"] in reachable, f"changeset {each['id']}: {was['state']} became {each['state']}"
        run = now.runs[each["run_id"]]
        pair = f"{run['state']} run with a {each['state']} changeset"
        assert run["state"] != "publishing" or each["state"] in TO_PUSH, pair
        assert each["state"] not in TO_PUSH or run["state"] in ("publishing", "completed", "failed"), pair
        assert run["outcome"] != "delivered" or each["state"] in SHOWN, pair
        assert each["state"] not in SHOWN or run["state"] in ("completed", "failed"), pair
        is_over = each["state"] in ("merged", "closed")
        assert is_over == (each["closed_at"] is not None), f"{each['id']} is {each['state']}, and knows not since when"
        assert each["state"] in SHOWN or each["observe_at"] is None, f"asked about although it is {each['state']}"
        assert each["superseded_by"] is None or each["state"] == "closed" or each["close_comment"], "two are shown"
    for state in ("open", "pushing"):
        places = Counter(place_of(each) for each in now.changesets.values() if each["state"] == state)
        crowded = {place for place, changesets in places.items() if changesets > 1}
        assert not crowded, f"more than one changeset is {state} on {crowded}"


def place_of(changeset: Record) -> tuple[UUID, str, str]:
    return changeset["client_id"], changeset["repository"], changeset["branch"]


def _reachable(state: ChangesetState) -> set[ChangesetState]:
    reached: set[ChangesetState] = set()
    beyond = {state}
    while beyond:
        beyond = {after for each in beyond for after in CHANGESET_RULES[each]} - reached
        reached |= beyond
    return reached


def _check_numbers(now: Look) -> None:
    """The events of each job are 1..n without a hole, and tell its beginning and its end once each."""
    told: dict[UUID, list[Record]] = defaultdict(list)
    for event in now.events:
        told[event["job_id"]].append(event)
    for job in now.jobs.values():
        events = told[job["id"]]
        numbers = [event["number"] for event in events]
        assert numbers == list(range(1, job["last_event_number"] + 1)), f"events of {job['id']} have holes"
        kinds = Counter(event["kind"] for event in events)
        assert kinds["job.started"] == (job["started_at"] is not None), f"{job['id']} told its start wrongly"
        ends = [event["state"] for event in events if event["kind"] == "job.finished"]
        assert ends == ([job["state"]] if job["finished_at"] else []), f"{job['id']} is {job['state']}, and told {ends}"


def _check_sequences(now: Look) -> None:
    """Sequences are 1..n without a hole, and in each job they follow its numbers."""
    given = sorted(event["sequence"] for event in now.events if event["sequence"] is not None)
    assert given == list(range(1, now.assigned + 1)), "sequences have holes"
    for one, next_one in pairwise(now.events):
        if one["job_id"] == next_one["job_id"] and next_one["sequence"] is not None:
            assert one["sequence"] is not None, "published before the one before it"
            assert one["sequence"] < next_one["sequence"], "published out of order"


def _check_stories(now: Look) -> None:
    """What the log tells of each run follows the table of transitions, and ends where the run is."""
    told: dict[UUID, list[Record]] = defaultdict(list)
    for event in now.events:
        if event["run_id"] is not None:
            told[event["run_id"]].append(event)
    for run in now.runs.values():
        events = told[run["id"]]
        story = " → ".join(_word(event) for event in events)
        state = RunState.QUEUED
        for event in events:
            assert event["kind"] != EventKind.RUN_DISPATCHED, "runs begin as soon as they are admitted"
            if state in FINAL_RUN_STATES:
                assert event["kind"].startswith("changeset."), f"told after the end of {run['id']}: {story}"
            elif (transition := _transition(event)) is not None:
                state = states.after(state, transition)
        assert run["state"] == state, f"{run['id']} is {run['state']}, but its story is {story}"
        attempts = [event["attempt"] for event in events if event["kind"] == "run.started"]
        assert attempts == list(range(1, run["attempt"] + 1)), f"{run['id']} has attempts {attempts}"
        _check_costs(run, events)
        ordered = [event["attempt"] for event in events]
        assert ordered == sorted(ordered), f"an older attempt of {run['id']} was heard: {story}"


def _check_costs(run: Record, events: list[Record]) -> None:
    """Only what agents gave up is spent, and only what they had taken up is lost."""
    reasons = Counter(event["reason"] for event in events if event["kind"] == "run.requeued")
    lost = reasons["lost"] + (run["exit_reason"] == "lost")
    assert run["times_lost"] <= lost, f"{run['id']} was lost {lost} times, and counts {run['times_lost']}"
    spent = reasons["retry"] + (run["state"] == "failed")
    assert run["attempts_spent"] <= spent, f"{run['id']} gave up {spent} times, and counts {run['attempts_spent']}"


def _transition(event: Record) -> RunTransition | None:
    match EventKind(event["kind"]):
        case EventKind.RUN_REQUEUED:
            return _REQUEUED_BY[event["reason"]]
        case EventKind.RUN_FINISHED:
            return _FINISHED_BY[event["state"]]
        case kind:
            return _MOVED_BY.get(kind)


def _word(event: Record) -> str:
    return " ".join(word for word in (event["kind"], event["state"] or event["reason"]) if word)
