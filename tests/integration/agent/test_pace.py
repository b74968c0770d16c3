"""One refusal slows the whole fleet: a token bucket in Postgres, told over NATS, forgotten once nothing is short."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from pydantic import SecretStr

from services.agent.model import Endpoint
from services.agent.pace import FleetPace
from services.jobs.pacing import FORGOTTEN, Pacing
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


async def waits(pacing: Pacing, count: int) -> list[float]:
    taken = [await pacing.take(SCOPE) for _ in range(count)]
    assert all(wait is not None for wait in taken)
    return [wait.total_seconds() for wait in taken if wait is not None]


async def rate(domain: Domain) -> float:
    (row,) = await domain.rows("SELECT per_second FROM model_pace")
    return float(row["per_second"])


async def test_while_nothing_is_short_nobody_waits(pacing: Pacing):
    assert await pacing.take(SCOPE) is None


async def test_after_a_refusal_each_has_a_turn_of_its_own(pacing: Pacing):
    await pacing.throttle(SCOPE, NOTHING)
    turns = await waits(pacing, 8)
    gaps = [later - earlier for earlier, later in pairwise(turns)]
    assert turns == sorted(turns)
    assert all(0.1 < gap <= 0.26 for gap in gaps), "four a second at first"
    assert await pacing.take("another scope") is None


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
    await pacing.take(SCOPE)
    assert await rate(domain) == pytest.approx(32, rel=0.1), "doubled every ten seconds"
    await age(domain, seconds=FORGOTTEN.total_seconds())
    assert await pacing.take(SCOPE) is None
    await pacing.throttle(SCOPE, NOTHING)
    assert await rate(domain) == 4, "a new shortage begins anew"


async def test_it_does_not_recover_while_it_is_left_alone(domain: Domain, pacing: Pacing):
    await pacing.throttle(SCOPE, timedelta(seconds=100))
    await age(domain, seconds=60)
    await pacing.take(SCOPE)
    assert await rate(domain) == 4


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
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await other.permit(endpoint)
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
