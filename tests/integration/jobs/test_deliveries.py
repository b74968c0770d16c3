"""Deliveries of webhooks: each is new once, and forgotten after a week."""

import asyncio

from services.jobs.deliveries import Deliveries
from tests.integration.jobs.domain import Domain


async def test_a_delivery_is_new_once(domain: Domain) -> None:
    keep = Deliveries(domain.database).keep

    answers = await asyncio.gather(*(keep("github", "1", "push", b"{}") for _ in range(50)))

    assert sorted(answers) == [False] * 49 + [True]
    assert await keep("github", "2", "push", b"{}")
    assert await keep("other", "1", "push", b"{}")
    assert not await keep("github", "1", "pull_request", b"{}")


async def test_old_deliveries_are_forgotten(domain: Domain) -> None:
    for delivery in ("old", "new"):
        await Deliveries(domain.database).keep("github", delivery, "push", None)
    await domain.execute("UPDATE webhook_deliveries SET received_at = now() - interval '8 days' WHERE delivery = 'old'")

    await domain.scheduling.forget_old()

    assert [row["delivery"] for row in await domain.rows("SELECT delivery FROM webhook_deliveries")] == ["new"]
