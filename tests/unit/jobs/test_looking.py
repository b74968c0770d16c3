"""What is left of a look once some was given away: of one priority, the rest is shared out as if all of it had been at
once. Of several, a clock that a higher one has moved on holds for the lower ones, too, as after another look.
"""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.words import Queue
from services.jobs.fairness import Allocation, Candidate, Load
from services.jobs.limits import Limits
from services.jobs.looking import Seen
from services.jobs.placing import Place, spread

CLIENTS = [UUID(int=n) for n in (1_000, 2_000, 3_000)]

candidates = st.lists(
    st.builds(
        lambda client, queue, tag, available: (client, queue, tag, available),
        st.sampled_from(CLIENTS),
        st.sampled_from(list(Queue)),
        st.integers(0, 9),
        st.integers(1, 6),
    ),
    max_size=12,
).map(
    lambda drawn: [
        Candidate(UUID(int=n), client, f"client {client.int}", queue, 0, tag, available)
        for n, (client, queue, tag, available) in enumerate(drawn, start=1)
    ]
)
limits = st.builds(
    Limits,
    queues=st.dictionaries(st.sampled_from(list(Queue)), st.integers(0, 6)),
    clients=st.dictionaries(st.sampled_from(["", *(f"client {client.int}" for client in CLIENTS)]), st.integers(0, 6)),
)
loads = st.builds(
    Load,
    st.dictionaries(st.sampled_from(list(Queue)), st.integers(0, 4)),
    st.dictionaries(st.sampled_from(CLIENTS), st.integers(0, 4)),
)


def seen(waiting: Sequence[Candidate], load: Load, limited: Limits, free: int) -> Seen:
    return Seen(
        admissions=7, free=free, places=[Place("a", 20, free, 3)], load=load, limits=limited, candidates=waiting
    )


@given(candidates, loads, limits, st.integers(1, 20), st.integers(1, 8))
def test_in_parts_everybody_gets_what_all_at_once_would_give(
    waiting: list[Candidate], load: Load, limited: Limits, free: int, part: int
) -> None:
    at_once = seen(waiting, load, limited, free).shared(most=free)

    left, parts = seen(waiting, load, limited, free), list[Allocation]()
    while left.free > 0 and (wanted := left.shared(most=part)).runs:
        parts.append(wanted)
        left = left.less(wanted, {"a": sum(wanted.runs.values())})

    assert sum((Counter(each.runs) for each in parts), Counter()) == Counter(at_once.runs)
    assert {job: tag for each in parts for job, tag in each.tags.items()} == at_once.tags
    assert {flow: clock for each in parts for flow, clock in each.clocks.items()} == at_once.clocks
    assert (left.admissions, left.free) == (7 + len(parts), free - sum(at_once.runs.values()))
    assert {job.job_id: job.available for job in left.candidates} == {
        job.job_id: more for job in waiting if (more := job.available - at_once.runs.get(job.job_id, 0)) > 0
    }


def test_a_clock_that_was_moved_on_holds_for_what_is_left() -> None:
    """Else what has not begun for long would have all the rest for itself."""
    jobs = [
        Candidate(UUID(int=n), CLIENTS[0], "client 1000", Queue.CODE, priority, tag, available)
        for n, priority, tag, available in ((1, 1, 100, 2), (2, 0, 9, 2), (3, 0, 3, 3))
    ]
    before = seen(jobs, Load({}, {}), Limits(), 5)
    first = before.shared(most=2)
    assert (first.runs, first.clocks) == ({UUID(int=1): 2}, {(Queue.CODE, CLIENTS[0]): 101})
    assert before.less(first, {"a": 2}).shared(most=2).runs == {UUID(int=2): 1, UUID(int=3): 1}


def test_an_agent_has_as_many_places_less() -> None:
    jobs = [Candidate(UUID(int=n), CLIENTS[0], "client 1000", Queue.CODE, 0, 0, 1) for n in range(1, 6)]
    before = Seen(
        admissions=0,
        free=6,
        places=[Place("a", 4, 4, 11), Place("b", 2, 2, 12)],
        load=Load({}, {}),
        limits=Limits(),
        candidates=jobs,
    )
    wanted = before.shared(most=5)
    given_to = Counter(spread(before.places, 5))

    left = before.less(wanted, given_to)
    assert given_to == Counter(a=3, b=2)
    assert left.places == [Place("a", 4, 1, 11)]
    assert (left.load.by_queue, left.load.by_client) == ({Queue.CODE: 5}, {CLIENTS[0]: 5})
    assert left.candidates == []
    assert left.at == before.at, "it is as old as the look"
