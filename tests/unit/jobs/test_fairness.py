"""Who gets the free slots: priority, then the client with the fewest, then each job in its turn, then age."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.words import Queue
from services.jobs.fairness import Candidate, Flow, Load, allocate
from services.jobs.limits import Limits

IDLE = Load({}, {})
ANNA, BOB = UUID(int=1_000), UUID(int=2_000)


def job(
    number: int,
    *,
    client: UUID = ANNA,
    available: int = 1,
    priority: int = 0,
    tag: int = 0,
    queue: Queue = Queue.CODE,
) -> Candidate:
    return Candidate(UUID(int=number), client, f"client {client.int}", queue, priority, tag, available)


def share(
    *jobs: Candidate,
    free: int,
    load: Load = IDLE,
    limits: Limits | None = None,
    clocks: dict[Flow, int] | None = None,
) -> dict[int, int]:
    """How many runs each job gets, by its number."""
    given = allocate(jobs, load=load, limits=limits or Limits(), free=free, clocks=clocks or {})
    return {job_id.int: runs for job_id, runs in given.runs.items()}


def test_nobody_gets_anything_where_nothing_is_free() -> None:
    assert share(job(1), free=0) == {}


def test_the_highest_priority_goes_first_whosever_it_is() -> None:
    assert share(job(1, available=9), job(2, client=BOB, priority=1, available=3), free=4) == {2: 3, 1: 1}


def test_of_equals_the_oldest_goes_first() -> None:
    assert share(job(2), job(1), free=1) == {1: 1}


def test_a_big_job_takes_turns_with_small_ones() -> None:
    assert share(job(1, available=1_000), job(2), job(3), free=5) == {1: 3, 2: 1, 3: 1}


def test_a_job_that_comes_later_begins_at_the_clock_and_not_before_it() -> None:
    """Else one that was not ready for long would have all slots until it has caught up."""
    clocks = {(Queue.CODE, ANNA): 500}

    assert share(job(1, available=99, tag=500), job(2, available=99, tag=3), free=10, clocks=clocks) == {1: 5, 2: 5}


def test_the_clock_and_the_tags_move_on() -> None:
    given = allocate([job(1, available=9, tag=7), job(2, tag=8)], load=IDLE, limits=Limits(), free=4, clocks={})

    assert given.tags == {UUID(int=1): 10, UUID(int=2): 9}
    assert given.clocks == {(Queue.CODE, ANNA): 9}


def test_clients_are_brought_to_the_same_number() -> None:
    load = Load({Queue.CODE: 4}, {ANNA: 4})

    assert share(job(1, available=50), job(2, client=BOB, available=50), free=8, load=load) == {1: 2, 2: 6}


@pytest.mark.parametrize(
    "limits", [Limits(queues={Queue.CODE: 2}), Limits(clients={"": 2}), Limits(clients={"client 1000": 2, "": 0})]
)
def test_what_is_at_its_limit_holds_nobody_up(limits: Limits) -> None:
    others = job(2, client=BOB, queue=Queue.TASK, available=3)
    if limits.clients.get("", 9) < 3:
        limits = Limits(clients={**limits.clients, "client 2000": 9})

    assert share(job(1, available=9), others, free=100, limits=limits) == {1: 2, 2: 3}


def test_a_client_is_one_in_all_its_queues() -> None:
    tasks = job(2, queue=Queue.TASK, available=9)

    assert sum(share(job(1, available=9), tasks, free=100, limits=Limits(clients={"": 5})).values()) == 5


JOBS = st.lists(
    st.builds(
        job,
        st.integers(1, 500),
        client=st.sampled_from([ANNA, BOB]),
        available=st.integers(1, 30),
        priority=st.integers(-2, 2),
        tag=st.integers(0, 50),
        queue=st.sampled_from([Queue.CODE, Queue.TASK]),
    ),
    max_size=12,
    unique_by=lambda one: one.job_id,
)


@given(JOBS, st.integers(0, 60), st.integers(0, 20), st.integers(0, 20))
def test_all_that_may_be_given_is_given_and_never_more(
    jobs: list[Candidate], free: int, of_a_client: int, of_a_queue: int
) -> None:
    limits = Limits(clients={"": of_a_client}, queues={Queue.CODE: of_a_queue})
    given = allocate(jobs, load=IDLE, limits=limits, free=free, clocks={})

    by_id = {one.job_id: one for one in jobs}
    clients: Counter[UUID] = Counter()
    queues: Counter[Queue] = Counter()
    for job_id, runs in given.runs.items():
        assert 1 <= runs <= by_id[job_id].available
        clients[by_id[job_id].client_id] += runs
        queues[by_id[job_id].queue] += runs
    assert sum(given.runs.values()) <= free
    assert all(count <= of_a_client for count in clients.values())
    assert queues[Queue.CODE] <= of_a_queue
    if sum(given.runs.values()) < free:
        for one in jobs:
            if given.runs.get(one.job_id, 0) < one.available:
                is_full = one.queue is Queue.CODE and queues[Queue.CODE] == of_a_queue
                assert is_full or clients[one.client_id] == of_a_client
