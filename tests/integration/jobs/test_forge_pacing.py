"""The whole fleet obeys a forge's pauses and one rate for new pull requests.

Where a number must be exact, the bucket's clock stands still: it was refilled in the future.
"""

import asyncio
from datetime import timedelta

import pytest

from services.jobs.forge_pacing import ForgePacing, Wait
from tests.integration.jobs.changes import claimed, store
from tests.integration.jobs.domain import Domain

A_MINUTE, BURST, EVERY_SECONDS = 20.0, 5, 3.0
SLOWLY_A_MINUTE, SLOWLY_EVERY_SECONDS = 0.5, 120.0
SLACK_SECONDS = 30.0
"""What the test itself may take between two looks at the clock."""


async def refilled(domain: Domain, ago: timedelta) -> None:
    await domain.execute("UPDATE forge_pace SET refilled_at = now() - $1::interval", ago)


async def pass_pause(domain: Domain) -> None:
    await domain.execute("UPDATE forge_pace SET paused_until = now()")


@pytest.fixture
async def pacing(domain: Domain) -> ForgePacing:
    """A full bucket that time does not fill."""
    pacing = ForgePacing(domain.database, "a scope", creations_per_minute=A_MINUTE)
    assert await pacing.before(creates=False) is None
    await refilled(domain, ago=timedelta(days=-1))
    return pacing


@pytest.fixture
def slow_pacing(domain: Domain) -> ForgePacing:
    return ForgePacing(domain.database, "a slow scope", creations_per_minute=SLOWLY_A_MINUTE)


async def use_burst(pacing: ForgePacing) -> None:
    assert [await pacing.before(creates=True) for _ in range(BURST)] == [None] * BURST


async def refused(pacing: ForgePacing, *, creates: bool) -> Wait:
    wait = await pacing.before(creates=creates)
    assert wait is not None
    return wait


async def test_a_burst_goes_and_what_follows_waits_for_its_turn(pacing: ForgePacing) -> None:
    await use_burst(pacing)

    for _ in range(3):  # who has to wait takes nothing from the bucket
        wait = await refused(pacing, creates=True)
        assert wait.seconds == pytest.approx(EVERY_SECONDS)
        assert "pull requests" in wait.reason


async def test_who_waits_has_a_place_behind_those_that_wait(domain: Domain, pacing: ForgePacing) -> None:
    await use_burst(pacing)
    for place in range(3):
        wait = await refused(pacing, creates=True)
        assert wait.seconds == pytest.approx((1 + place) * EVERY_SECONDS)
        publication = await claimed(domain, await store(domain, await domain.start()))
        await domain.publishing.postpone(publication.hold, error=wait.reason, delay=timedelta(hours=1))


async def test_time_fills_the_bucket(domain: Domain, slow_pacing: ForgePacing) -> None:
    """At a slow pace one at least may go at once."""
    assert await slow_pacing.before(creates=True) is None
    wait = await refused(slow_pacing, creates=True)
    assert wait.seconds == pytest.approx(SLOWLY_EVERY_SECONDS, abs=SLACK_SECONDS)

    await refilled(domain, ago=timedelta(seconds=SLOWLY_EVERY_SECONDS / 2))
    wait = await refused(slow_pacing, creates=True)
    assert wait.seconds == pytest.approx(SLOWLY_EVERY_SECONDS / 2, abs=SLACK_SECONDS)

    await refilled(domain, ago=timedelta(seconds=wait.seconds))
    assert await slow_pacing.before(creates=True) is None
    await refused(slow_pacing, creates=True)


async def test_what_is_saved_up_is_no_more_than_a_burst(domain: Domain, pacing: ForgePacing) -> None:
    await use_burst(pacing)
    await refilled(domain, ago=timedelta(days=1))
    assert await pacing.before(creates=False) is None
    await refilled(domain, ago=timedelta(days=-1))

    await use_burst(pacing)
    await refused(pacing, creates=True)


async def test_looking_often_fills_as_much_as_looking_once(domain: Domain, slow_pacing: ForgePacing) -> None:
    assert await slow_pacing.before(creates=True) is None
    for _ in range(10):
        await refilled(domain, ago=timedelta(seconds=SLOWLY_EVERY_SECONDS / 10))
        assert await slow_pacing.before(creates=False) is None
    assert await slow_pacing.before(creates=True) is None


async def test_only_creations_are_counted(pacing: ForgePacing) -> None:
    for _ in range(2 * BURST):
        assert await pacing.before(creates=False) is None
    await use_burst(pacing)
    assert await pacing.before(creates=False) is None


async def test_many_at_once_take_exactly_what_is_there(domain: Domain, pacing: ForgePacing) -> None:
    fleet = [ForgePacing(domain.database, "a scope", creations_per_minute=A_MINUTE) for _ in range(40)]

    waits = await asyncio.gather(*(each.before(creates=True) for each in (pacing, *fleet)))

    assert waits.count(None) == BURST


async def test_the_first_ones_of_all_at_once_take_no_more_than_a_burst(domain: Domain) -> None:
    fleet = [ForgePacing(domain.database, "new", creations_per_minute=SLOWLY_A_MINUTE) for _ in range(20)]

    waits = await asyncio.gather(*(each.before(creates=True) for each in fleet))

    assert waits.count(None) == 1


async def test_each_credential_has_a_pace_of_its_own(domain: Domain, pacing: ForgePacing) -> None:
    await use_burst(pacing)
    await pacing.pause(60, "secondary rate limit")

    await use_burst(ForgePacing(domain.database, "another scope", creations_per_minute=A_MINUTE))


async def test_a_pause_holds_everybody_and_spends_nothing(domain: Domain, pacing: ForgePacing) -> None:
    other = ForgePacing(domain.database, "a scope", creations_per_minute=A_MINUTE)
    await pacing.pause(600, "secondary rate\0 limit")

    for creates in (True, False) * BURST:
        wait = await refused(other, creates=creates)
        assert wait.seconds == pytest.approx(600, abs=SLACK_SECONDS)
        assert wait.reason == "secondary rate\N{SYMBOL FOR NULL} limit"

    await pass_pause(domain)
    await use_burst(other)
    await refused(other, creates=True)


async def test_a_pause_only_grows(pacing: ForgePacing) -> None:
    for seconds, reason, left, said in (
        (600, "first", 600, "first"),
        (100, "shorter", 600, "first"),
        (1_800, "longer", 1_800, "longer"),
        (-5, "over before it came", 1_800, "longer"),
    ):
        await pacing.pause(seconds, reason)
        wait = await refused(pacing, creates=False)
        assert wait.seconds == pytest.approx(left, abs=SLACK_SECONDS)
        assert wait.reason == said


async def test_the_first_thing_known_of_a_forge_may_be_its_pause(domain: Domain) -> None:
    pacing = ForgePacing(domain.database, "new", creations_per_minute=A_MINUTE)
    await pacing.pause(1e9, "the forge's clock is wrong")

    wait = await refused(pacing, creates=True)
    assert wait.seconds == pytest.approx(3_600, abs=SLACK_SECONDS)
    await pass_pause(domain)
    await refilled(domain, ago=timedelta(days=-1))
    await use_burst(pacing)
    await refused(pacing, creates=True)


async def test_a_pause_that_is_over_holds_nobody(pacing: ForgePacing) -> None:
    await pacing.pause(-5, "over before it came")
    assert await pacing.before(creates=False) is None
