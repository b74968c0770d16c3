"""The plan of chaos: the same for a seed, as big as was asked for, and fair to every target."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.plan import FREEZE_SECONDS, FaultKind, Plan, make_plan

KILLED = (FaultKind.KILL, FaultKind.KILL_ALL, FaultKind.WIPE)


def plan(*, seed: int = 1, minutes: float = 17, kills: int = 200, jobs: int = 300, origins: int = 8) -> Plan:
    return make_plan(seed=seed, minutes=minutes, kills=kills, jobs=jobs, agents=2, origins=origins)


def test_a_seed_always_makes_the_same_plan():
    assert plan(seed=7) == plan(seed=7)
    assert plan(seed=7) != plan(seed=8)


def test_the_jobs_of_a_seed_do_not_hang_on_the_number_of_kills():
    assert plan(kills=200).jobs == plan(kills=8).jobs


@pytest.mark.parametrize("kills", [0, 1, 3, 4, 6, 50, 200])
def test_there_are_as_many_kills_as_asked_for(kills: int):
    counted = Counter(fault.kind for fault in plan(kills=kills).faults)

    assert sum(counted[kind] for kind in KILLED) == kills
    assert set(counted) == (set(FaultKind) if kills >= 4 else {FaultKind.KILL} if kills else set())


@pytest.mark.parametrize("minutes", [0.5, 17])
def test_faults_and_jobs_are_spread_over_the_minutes(minutes: float):
    made = plan(minutes=minutes)

    for pauses in ([each.pause_seconds for each in made.faults], [each.pause_seconds for each in made.jobs]):
        assert sum(pauses) == pytest.approx(minutes * 60)
        assert min(pauses) > 0
        assert max(pauses) < 20 * minutes * 60 / len(pauses)


def test_every_target_is_hit_about_as_often_as_any_other():
    single = (FaultKind.KILL, FaultKind.FREEZE, FaultKind.RESTART)
    hit = Counter(fault.target for fault in plan().faults if fault.kind in single)

    assert set(hit) == {"gateway", "scheduler", "scheduler-2", "vcs", "nats", "postgres", "agent-1", "agent-2"}
    assert max(hit.values()) - min(hit.values()) <= 1


def test_a_freeze_outlasts_a_lease_and_nothing_else_freezes():
    for fault in plan().faults:
        if fault.kind is FaultKind.FREEZE:
            assert FREEZE_SECONDS[0] <= fault.freeze_seconds <= FREEZE_SECONDS[1]
        else:
            assert fault.freeze_seconds == 0


def test_only_nats_loses_its_store():
    assert {fault.target for fault in plan().faults if fault.kind is FaultKind.WIPE} == {"nats"}


@pytest.mark.parametrize("origins", [1, 2, 8])
def test_a_job_names_one_to_three_origins_none_twice(origins: int):
    made = plan(origins=origins)

    for job in made.jobs:
        assert len(set(job.origins)) == len(job.origins)
        assert set(job.origins) <= set(range(origins))
    assert {len(job.origins) for job in made.jobs} == set(range(1, min(3, origins) + 1))


def test_a_long_run_has_jobs_of_every_kind():
    jobs = plan().jobs

    assert [job.number for job in jobs] == list(range(1, 301))
    assert {job.cancelled for job in jobs} == {None, "job", "run"}
    assert {job.is_sent_twice for job in jobs} == {job.is_watched for job in jobs} == {True, False}
