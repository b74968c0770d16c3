"""The heartbeat: renews from a thread of its own, and tells the holder when to stop; times are made short here."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.jobs import heartbeat as module
from services.jobs.heartbeat import Ending, Heartbeat
from services.jobs.leases import Node, Renewed, new_node_name, renew, tell_seen
from services.jobs.models import ClaimedRun
from services.jobs.scheduling import LEASE
from services.runtime.postgres import Connection
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until, until_async

BLOCKED_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY", timedelta(seconds=0.2))
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.02)


@pytest.fixture
async def heartbeat(domain: Domain, domain_database_url: str) -> AsyncIterator[Heartbeat]:
    heartbeat = Heartbeat(domain_database_url, Node(new_node_name("agent"), "agent"))
    heartbeat.start()
    yield heartbeat
    await heartbeat.stop()


def hold(heartbeat: Heartbeat, run: ClaimedRun) -> list[Ending]:
    """Have ``run`` renewed; what its holder is told stands in the list."""
    told: list[Ending] = []
    heartbeat.hold(run.hold.run_id, run.hold.token, claimed_at=time.monotonic(), on_end=told.append)
    return told


async def expiry(domain: Domain) -> datetime:
    (row,) = await domain.rows("SELECT expires_at FROM leases")
    expires_at: datetime = row["expires_at"]
    return expires_at


async def renewals(domain: Domain, count: int) -> None:
    """Wait until the one lease was renewed ``count`` times more."""
    for _ in range(count):
        before = await expiry(domain)

        async def renewed(before: datetime = before) -> bool:
            return await expiry(domain) > before

        await until_async(renewed)


async def test_it_renews_what_is_held_and_tells_nothing(domain: Domain, heartbeat: Heartbeat) -> None:
    told = hold(heartbeat, await domain.start())

    await renewals(domain, 3)

    assert told == []


async def test_a_beat_is_known_by_its_number_and_when_it_was_sent(domain: Domain, heartbeat: Heartbeat) -> None:
    async def beat() -> int:
        rows = await domain.rows("SELECT beat FROM nodes")
        return int(rows[0]["beat"]) if rows else 0

    seen: dict[int, tuple[float, float]] = {}

    async def has_seen_three() -> bool:
        number = await beat()
        sent_at = heartbeat.sent_at(number)
        if number:
            assert sent_at is not None
            seen.setdefault(number, (sent_at, time.monotonic()))
        return len(seen) == 3

    await until_async(has_seen_three)

    assert all(sent_at < seen_at for sent_at, seen_at in seen.values()), "it was sent before it could be seen"
    times = [sent_at for _, (sent_at, _) in sorted(seen.items())]
    assert times == sorted(set(times))
    assert heartbeat.sent_at(0) is None
    assert heartbeat.sent_at(max(seen) + 1_000) is None


async def test_a_beat_was_sent_before_it_is_and_nothing_moves_that(
    domain: Domain, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a lease that is granted as soon as the beat is there could end before its holder thinks."""
    seen: list[tuple[int, float | None]] = []

    async def tell(connection: Connection, node: Node) -> None:
        seen.append((node.beat, heartbeat.sent_at(node.beat)))
        await tell_seen(connection, node)

    monkeypatch.setattr(module, "tell_seen", tell)
    await until(lambda: len(seen) > 3)

    for beat, sent_at in seen[:3]:
        assert sent_at is not None, "it is on its way, and nobody knows since when"
        assert heartbeat.sent_at(beat) == sent_at


def test_what_begins_at_once_can_be_renewed_before_it_is_given_up_and_given_up_before_its_lease_is_over() -> None:
    renewed_by = module.FRESH_FOR + timedelta(seconds=0.5)  # of two ticks
    assert renewed_by < module.GIVE_UP_AFTER
    assert module.GIVE_UP_AFTER + timedelta(seconds=2) < LEASE


async def test_a_run_that_began_just_before_a_beat_is_renewed_before_the_next(
    domain: Domain, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what its order says: its lease counts from the beat before, and is due."""
    monkeypatch.setattr(module, "RENEW_EVERY", timedelta(seconds=3_600))
    run = await domain.start()

    async def has_beaten() -> bool:
        return bool(await domain.rows("SELECT FROM nodes WHERE name <> 'agent-1'"))

    await until_async(has_beaten)
    long_ago, before = time.monotonic() - 3_600, await expiry(domain)
    monkeypatch.setattr(module, "GIVE_UP_AFTER", timedelta(seconds=7_200))
    heartbeat.hold(run.hold.run_id, run.hold.token, claimed_at=long_ago, on_end=lambda _: None)

    async def is_renewed() -> bool:
        return await expiry(domain) > before

    await until_async(is_renewed)


async def test_one_that_is_held_again_is_as_fresh_as_it_was(domain: Domain, heartbeat: Heartbeat) -> None:
    """Its holder may have been taking it up for longer than a lease may go without a renewal."""
    run = await domain.start()
    hold(heartbeat, run)
    await renewals(domain, 1)
    told: list[Ending] = []
    long_ago = time.monotonic() - 2 * module.GIVE_UP_AFTER.total_seconds()
    heartbeat.hold(run.hold.run_id, run.hold.token, claimed_at=long_ago, on_end=told.append)
    await renewals(domain, 2)
    assert told == []


async def test_a_renewal_that_postgres_undid_is_made_again(
    domain: Domain, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of two that waited for each other: the process, with all of its runs, lives on."""
    undone: list[type[Exception]] = [asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError]

    async def renewed(connection: Connection, held: Mapping[UUID, UUID]) -> list[Renewed]:
        if held and undone:
            raise undone.pop()("undone")
        return await renew(connection, held)

    monkeypatch.setattr(module, "renew", renewed)
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    told = hold(heartbeat, await domain.start())

    await until(lambda: not undone)
    await renewals(domain, 1)

    assert (told, ends) == ([], [])


async def test_leases_are_locked_ascending_wherever_they_lie(domain: Domain) -> None:
    """A renewal waits for one of two leases, and holds none that comes behind it."""
    runs = sorted([await domain.start(f"https://a/{n}") for n in range(2)], key=lambda run: run.hold.run_id)
    low, high = (run.hold.run_id for run in runs)
    await domain.execute("CREATE TABLE kept AS SELECT * FROM leases")
    await domain.execute("DELETE FROM leases")
    for each in (high, low):  # so the higher one lies before the lower
        await domain.execute("INSERT INTO leases SELECT * FROM kept WHERE id = $1", each)
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    async def is_waiting() -> bool:
        return bool(await domain.rows(waiting))

    async with domain.database.connection() as connection, domain.database.transaction() as other:
        await other.execute("SELECT FROM leases WHERE id = $1 FOR UPDATE", low)
        held = {run.hold.run_id: run.hold.token for run in runs}
        renewing = asyncio.create_task(renew(connection, held))
        await until_async(is_waiting)
        await other.execute("SELECT FROM leases WHERE id = $1 FOR UPDATE NOWAIT", high)
    assert {lease.id for lease in await renewing} == {low, high}


async def test_what_is_dropped_runs_out_while_others_are_renewed(domain: Domain, heartbeat: Heartbeat) -> None:
    kept, dropped = await domain.start("https://a/1"), await domain.start("https://a/2")
    told = hold(heartbeat, kept), hold(heartbeat, dropped)
    heartbeat.drop(dropped.hold.run_id)
    await domain.expire(kept.hold.run_id)
    await domain.expire(dropped.hold.run_id)

    async def kept_is_renewed() -> bool:
        return bool(await domain.rows("SELECT FROM leases WHERE id = $1 AND expires_at > now()", kept.hold.run_id))

    await until_async(kept_is_renewed)
    assert await domain.rows("SELECT FROM leases WHERE id = $1 AND expires_at > now()", dropped.hold.run_id) == []
    assert told == ([], [])


async def offers(domain: Domain, places: int) -> None:
    """Wait until the one node says that it has so many places."""

    async def are_there() -> bool:
        rows = await domain.rows("SELECT capacity FROM nodes WHERE kind = 'agent'")
        return [row["capacity"] for row in rows] == [places]

    await until_async(are_there)


async def test_its_node_is_there_while_it_beats_with_the_places_it_has_then(
    domain: Domain, heartbeat: Heartbeat
) -> None:
    await offers(domain, 0)  # until it says that orders can be heard
    places = 2
    heartbeat.offer(lambda: places)
    await offers(domain, 2)
    places = 0  # as while it has no way to NATS
    await offers(domain, 0)

    await heartbeat.stop()
    assert await domain.rows("SELECT FROM nodes") == []


async def test_a_node_says_at_once_what_it_offers(
    domain: Domain, domain_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with its next renewal: what was given to it meanwhile would be given in vain."""
    monkeypatch.setattr(module, "RENEW_EVERY", timedelta(seconds=BLOCKED_SECONDS))
    heartbeat = Heartbeat(domain_database_url, Node(new_node_name("agent"), "agent"))
    heartbeat.start()
    try:
        await offers(domain, 0)
        heartbeat.offer(lambda: 3)
        await offers(domain, 3)
        heartbeat.offer(lambda: 0)
        await offers(domain, 0)
    finally:
        await heartbeat.stop()


async def test_a_node_that_was_forgotten_is_there_again_with_the_next_beat(
    domain: Domain, heartbeat: Heartbeat
) -> None:
    """As after its orders were recalled, or after it was away for an hour."""
    heartbeat.offer(lambda: 2)
    await offers(domain, 2)
    await domain.execute("UPDATE nodes SET capacity = 0")
    await offers(domain, 2)
    await domain.execute("DELETE FROM nodes")
    await offers(domain, 2)


async def test_a_lease_that_another_took_is_lost(domain: Domain, heartbeat: Heartbeat) -> None:
    told = hold(heartbeat, await domain.start())
    await domain.execute("UPDATE leases SET token = $1", uuid4())

    await until(lambda: bool(told))
    assert told == [Ending.LOST]


async def test_renewals_that_do_not_get_through_end_the_work(
    domain: Domain, heartbeat: Heartbeat, domain_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = hold(heartbeat, await domain.start())
    await renewals(domain, 1)
    monkeypatch.setattr(module, "GIVE_UP_AFTER", timedelta(seconds=1))
    blocker = await asyncpg.connect(domain_database_url)
    try:
        await blocker.execute("BEGIN; LOCK TABLE leases")
        await until(lambda: bool(told))
    finally:
        await blocker.close()

    assert told == [Ending.LOST]


async def test_a_claim_that_took_too_long_is_lost_at_once(domain: Domain, heartbeat: Heartbeat) -> None:
    """Time counts from before the claim was sent: another may have the run by now."""
    run = await domain.start()
    await domain.execute("DELETE FROM leases")
    told: list[Ending] = []
    claimed_at = time.monotonic() - module.GIVE_UP_AFTER.total_seconds() - 1
    heartbeat.hold(run.hold.run_id, run.hold.token, claimed_at=claimed_at, on_end=told.append)

    await until(lambda: bool(told))
    assert told == [Ending.LOST]


async def test_a_cancel_is_told_while_the_lease_is_kept(domain: Domain, heartbeat: Heartbeat) -> None:
    run = await domain.start()
    told = hold(heartbeat, run)
    await domain.cancelling.request(domain.client, run.hold.job_id)

    await until(lambda: bool(told))
    assert told[0] is Ending.CANCELLED
    await renewals(domain, 2)
    assert Ending.LOST not in told
    await domain.running.cancelled(run.hold)


async def test_a_connection_that_is_cut_is_made_again(domain: Domain, heartbeat: Heartbeat) -> None:
    told = hold(heartbeat, await domain.start())
    await renewals(domain, 1)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%heartbeat'"
    assert len(await domain.rows(cut)) == 1

    await renewals(domain, 2)
    assert told == []


async def test_a_blocked_event_loop_keeps_its_lease(
    domain: Domain, heartbeat: Heartbeat, domain_database_url: str
) -> None:
    told = hold(heartbeat, await domain.start())
    await renewals(domain, 1)
    seen: list[datetime] = []

    async def watch() -> None:
        connection = await asyncpg.connect(domain_database_url)
        try:
            async with asyncio.timeout(BLOCKED_SECONDS):
                while len(seen) < 4:
                    expires_at = await connection.fetchval("SELECT expires_at FROM leases")
                    if not seen or expires_at > seen[-1]:
                        seen.append(expires_at)
        finally:
            await connection.close()

    watcher = threading.Thread(target=lambda: asyncio.run(watch()))
    watcher.start()
    watcher.join(BLOCKED_SECONDS)  # blocks the loop, as the test is about

    assert len(seen) == 4
    assert told == []
