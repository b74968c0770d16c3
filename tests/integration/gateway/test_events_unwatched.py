"""The stream of events is read while somebody watches; who comes after a pause finds everything, deltas included."""

import httpx
import nats
import pytest
from nats.js import JetStreamContext

from services.contracts.subjects import EVENTS_STREAM
from services.gateway.events import hub
from tests.integration.gateway.conftest import Scheduler
from tests.integration.gateway.watching import watching, watching_all
from tests.integration.waiting import until_async


async def is_unread(jetstream: JetStreamContext) -> bool:
    """Whether nobody waits for the next event."""
    return not any(consumer.num_waiting for consumer in await jetstream.consumers_info(EVENTS_STREAM))


async def test_who_comes_back_after_nobody_had_watched_misses_nothing(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "LINGER_SECONDS", 0.0)
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    try:
        assert await is_unread(jetstream)
        async with watching(gateway, job) as watcher, watching_all(gateway) as all_watcher:
            await scheduler.tell(job, "one")
            assert await watcher.take(2) == ["job.submitted", "log:one"]
            assert await all_watcher.take(1) == ["log:one"]
            assert not await is_unread(jetstream)
        await until_async(lambda: is_unread(jetstream))

        await scheduler.delta(job, "a")
        await scheduler.tell(job, "two")
        async with (
            watching(gateway, job, watcher.last_id) as again,
            watching_all(gateway, all_watcher.last_id) as all_again,
        ):
            await scheduler.delta(job, "b")
            await scheduler.tell(job, "three")
            assert await again.take(4) == ["delta:a", "log:two", "delta:b", "log:three"]
            assert await all_again.take(4) == ["delta:a", "log:two", "delta:b", "log:three"]
    finally:
        await client.close()
