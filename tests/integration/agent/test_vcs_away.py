"""While a node's vcs is away its runs wait: that is nobody's fault, and costs no attempt."""

import asyncio

from quarterdeck.stack.ports import free_ports
from services.agent.attempt import Attempt
from services.agent.model import Claude
from services.agent.vcs_client import VcsClient
from services.runtime.jetstream import Bus
from tests.integration.agent.agents import settings_of, shared_of
from tests.integration.jobs.conftest import database, domain, domain_database_url
from tests.integration.jobs.domain import Domain

__all__ = ["database", "domain", "domain_database_url"]


async def test_a_run_whose_vcs_is_away_is_put_off_at_no_cost(domain: Domain, domain_database_url: str) -> None:
    (nobody,) = free_ports(1)
    vcs = VcsClient(f"127.0.0.1:{nobody}", "token")
    claude = Claude()
    settings = settings_of(domain_database_url, "nats://127.0.0.1:1", None)
    bus = Bus("nats://127.0.0.1:1", name="test")
    order = await domain.dispatch_one(maxAttempts=1)
    try:
        shared = shared_of(settings, domain, bus, vcs=vcs, claude=claude)
        async with asyncio.timeout(60):
            await Attempt(await domain.claimed(order), shared).work()
    finally:
        await vcs.close()
        await claude.close()

    row = await domain.row("runs", order.run_id)
    assert (row["state"], row["attempts_spent"], row["not_before"] is not None) == ("queued", 0, True)
    assert "the vcs of this node is away" in row["error"]
    assert (await domain.events(order.job_id))[-1].data["reason"] == "interrupted"
