"""One refusal slows the whole fleet: a token bucket in Postgres, told over NATS, forgotten once nothing is short."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from pydantic import SecretStr

from services.agent.model import Endpoint, PostponedError
from services.agent.pace import FleetPace
from services.jobs.pacing import FORGOTTEN, Line, Pacing
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from tests.integration.agent.fleet import Fleet
from tests.integration.jobs.conftest import database, domain, domain_database_url
from tests.integration.jobs.domain import Domain

__all__ = ["database", "domain", "domain_database_url"]

DEADLINE_SECONDS = 60
SCOPE = "a scope"
NOTHING = timedelta()


@pytest.fixture
def pacing(domain: Domain) -> Pacing:
    return Pacing(domain.database)


async def age(domain: Domain, *, seconds: float) -> None:
    """Let so much time have passed."""
    await domain.execute(
        f"UPDATE model_pace SET refilled_at = refilled_at - interval '{seconds} seconds',"
        f" paused_until = paused_until - interval '{seconds} seconds',"
        f" throttled_at = throttled_at - interval '{seconds} seconds'"
    )


async def look(pacing: Pacing, places: int = 0) -> Line:
    line = await pacing.look(SCOPE, places)
    assert line is not None
    return line


async def waits(pacing: Pacing, count: int) -> list[float]:
    """Of so many that come one after the other."""
    lines = [await look(pacing, 1) for _ in range(count)]
    return [line.wait(line.taken).total_seconds() for line in lines]


async def rate(domain: Domain) -> float:
    (row,) = await domain.rows("SELECT per_second FROM model_pace")
    return float(row["per_second"])


async def test_while_nothing_is_short_nobody_waits(pacing: Pacing):
    assert await pacing.look(SCOPE, 1) is None


async def test_after_a_refusal_each_has_a_turn_of_its_own(pacing: Pacing):
    await pacing.throttle(SCOPE, NOTHING)
    turns = await waits(pacing, 8)
    gaps = [later - earlier for earlier, later in pairwise(turns)]
    assert turns == sorted(turns)
    assert all(0.1 < gap <= 0.26 for gap in gaps), "four a second at first"
    assert await pacing.look("another scope", 1) is None


async def test_everybody_stays_away_as_long_as_the_service_asks(pacing: Pacing):
    await pacing.throttle(SCOPE, timedelta(seconds=30))
    await pacing.throttle(SCOPE, timedelta(seconds=5))
    assert all(29 < wait < 35 for wait in await waits(pacing, 4))


async def test_many_refusals_at_once_are_one_shortage(domain: Domain, pacing: Pacing):
    await pacing.throttle(SCOPE, NOTHING)
    await asyncio.gather(*(pacing.throttle(SCOPE, NOTHING) for _ in range(20)))
    assert await rate(domain) == 4
    await age(domain, seconds=2)
    await asyncio.gather(*(pacing.throttle(SCOPE, NOTHING) for _ in range(20)))
    assert await rate(domain) == 2


async def test_it_recovers_and_is_forgotten(domain: Domain, pacing: Pacing):
    await pacing.throttle(SCOPE, NOTHING)
    await age(domain, seconds=30)
    await look(pacing)
    assert await rate(domain) == pytest.approx(32, rel=0.1), "doubled every ten seconds"
    await age(domain, seconds=FORGOTTEN.total_seconds())
    assert await pacing.look(SCOPE, 1) is None
    await pacing.throttle(SCOPE, NOTHING)
    assert await rate(domain) == 4, "a new shortage begins anew"


async def test_it_does_not_recover_while_it_is_left_alone(domain: Domain, pacing: Pacing):
    await pacing.throttle(SCOPE, timedelta(seconds=100))
    await age(domain, seconds=60)
    await look(pacing)
    assert await rate(domain) == 4


async def test_places_are_in_one_line_and_reached_as_the_rate_recovers(domain: Domain, pacing: Pacing):
    await pacing.throttle(SCOPE, NOTHING)
    await domain.execute("UPDATE model_pace SET per_second = 0.1")
    first, second = await look(pacing, 100), await look(pacing, 201)
    assert (first.taken, second.taken) == (100, 301)
    assert not second.may_ask(1)
    assert 76 < second.wait(301).total_seconds() < 79, "not 50 minutes, as at the rate of now"
    await age(domain, seconds=40)
    later = await look(pacing)
    assert later.taken == 301
    assert 20 < later.reached < 23
    assert later.may_ask(20)
    assert not later.may_ask(24)
    assert 36 < later.wait(301).total_seconds() < 39
    await age(domain, seconds=later.wait(301).total_seconds())
    assert (await look(pacing)).may_ask(301)


async def test_how_often_is_looked_makes_no_difference(domain: Domain, pacing: Pacing):
    reached = []
    for steps in (1, 40):
        await domain.execute("DELETE FROM model_pace")
        await pacing.throttle(SCOPE, NOTHING)
        await look(pacing, 1_000)
        for _ in range(steps):
            await age(domain, seconds=40 / steps)
            line = await look(pacing)
        reached.append(line.reached)
    assert reached[1] == pytest.approx(reached[0], rel=0.1)


async def test_a_new_shortage_does_not_wait_for_the_line_of_one_that_is_forgotten(domain: Domain, pacing: Pacing):
    await pacing.throttle(SCOPE, NOTHING)
    await look(pacing, 500)
    await age(domain, seconds=FORGOTTEN.total_seconds() + 1)
    await pacing.throttle(SCOPE, NOTHING)
    assert all(wait < 1 for wait in await waits(pacing, 2))


async def test_nobody_asks_while_the_service_is_left_alone(domain: Domain, pacing: Pacing):
    await pacing.throttle(SCOPE, NOTHING)
    await look(pacing, 1)
    await age(domain, seconds=5)
    assert (await look(pacing)).may_ask(1)
    await pacing.throttle(SCOPE, timedelta(seconds=30))
    paused = await look(pacing)
    assert not paused.may_ask(1)
    assert 29 < paused.wait(1).total_seconds() <= 30


async def test_a_refusal_of_one_agent_slows_another(
    fleet: Fleet, bus_of_another_process: Bus, monkeypatch: pytest.MonkeyPatch
):
    database: Database = fleet.domain.database
    refused, other = FleetPace(Pacing(database), fleet.bus), FleetPace(Pacing(database), bus_of_another_process)
    endpoint = Endpoint(SecretStr("a key"), "http://model.invalid")
    heard = asyncio.Event()
    hear = other.heard

    def noted(scope: str) -> None:
        hear(scope)
        heard.set()

    monkeypatch.setattr(other, "heard", noted)
    hearing = asyncio.create_task(other.hear())
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not heard.is_set():  # core NATS: what is told before the other listens is lost
                await refused.throttled(endpoint, timedelta(seconds=3600))
                await asyncio.wait([asyncio.create_task(heard.wait())], timeout=0.5)
        with pytest.raises(PostponedError) as postponed:
            await other.permit(endpoint)
        assert timedelta(minutes=59) < postponed.value.delay < timedelta(minutes=61)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await other.permit(Endpoint(SecretStr("another key"), "http://model.invalid"))
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


@pytest.fixture
async def bus_of_another_process(fleet: Fleet):
    bus = Bus(fleet.nats_url, name="another agent")
    await bus.start()
    yield bus
    await bus.close()
