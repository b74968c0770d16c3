"""Who gets which run: always the agent with the largest share of its places free, and nobody more than it can hold."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.placing import Place, spread


@st.composite
def fleets(draw: st.DrawFn) -> list[Place]:
    capacities = draw(st.lists(st.integers(1, 9), max_size=6))
    return [
        Place(f"agent-{number}", capacity, draw(st.integers(1, capacity))) for number, capacity in enumerate(capacities)
    ]


def test_each_run_goes_where_the_largest_share_is_free() -> None:
    large, small = Place("large", capacity=10, free=6), Place("small", capacity=2, free=1)

    assert spread([small, large], 7) == ["large", "large", "small", "large", "large", "large", "large"]


def test_an_agent_of_many_places_gets_as_many_more() -> None:
    agents = [Place("large", capacity=30, free=30), Place("small", capacity=10, free=10)]

    assert Counter(spread(agents, 20)) == {"large": 15, "small": 5}


def test_of_equal_shares_the_first_by_name_goes_first_in_whatever_order_they_come() -> None:
    agents = [Place(name, capacity=4, free=4) for name in ("b", "a", "c")]

    assert spread(agents, 6) == spread(agents[::-1], 6) == ["a", "b", "c", "a", "b", "c"]


def test_one_that_has_less_room_fills_up_last() -> None:
    busy, idle = Place("busy", capacity=10, free=2), Place("idle", capacity=10, free=10)

    assert spread([busy, idle], 9) == [*["idle"] * 8, "busy"]


def test_all_room_there_is_can_be_given_and_nothing_more() -> None:
    agents = [Place("a", capacity=5, free=1), Place("b", capacity=2, free=2)]

    assert sorted(spread(agents, 3)) == ["a", "b", "b"]
    with pytest.raises(ValueError, match="4 runs are more than the agents have room for"):
        spread(agents, 4)


def test_without_agents_nothing_can_be_given() -> None:
    assert spread([], 0) == []
    with pytest.raises(ValueError, match="1 runs are more"):
        spread([], 1)


@given(fleets(), st.data())
def test_nobody_is_given_more_than_it_has_free_and_each_run_goes_to_whom_it_is_lightest_for(
    agents: list[Place], data: st.DataObject
) -> None:
    runs = data.draw(st.integers(0, sum(agent.free for agent in agents)))
    left = {agent.name: agent.free for agent in agents}

    names = spread(agents, runs)

    assert len(names) == runs
    for name in names:
        shares = {agent.name: left[agent.name] / agent.capacity for agent in agents}
        assert name == min(name for name, share in shares.items() if share == max(shares.values()))
        left[name] -= 1
    assert min(left.values(), default=0) >= 0
