"""While a node's vcs is away its runs wait: that is nobody's fault, and costs no attempt."""

import asyncio

from quarterdeck.stack.ports import free_ports
from services.agent.attempt import Attempt, Tools
from services.agent.model import Claude
from services.agent.settings import AgentSettings
from services.agent.vcs_client import VcsClient
from services.runtime.jetstream import Bus
from tests.integration.jobs.conftest import database, domain, domain_database_url
from tests.integration.jobs.domain import Domain

__all__ = ["database", "domain", "domain_database_url"]


async def test_a_run_whose_vcs_is_away_is_put_off_at_no_cost(domain: Domain, domain_database_url: str) -> None:
    (nobody,) = free_ports(1)
    vcs = VcsClient(f"127.0.0.1:{nobody}", "token")
    claude = Claude(api_key="x", base_url=None, model="a-model", max_tokens=1_000)
    settings = AgentSettings.model_validate(
        {
            "DATABASE_URL": domain_database_url,
            "NATS_URL": "nats://127.0.0.1:1",
            "ANTHROPIC_API_KEY": "x",
            "vcs_token": "token",
        }
    )
    bus = Bus("nats://127.0.0.1:1", name="test")
    order = await domain.dispatch_one(maxAttempts=1)
    try:
        tools = Tools(settings, domain.running, claude, vcs, bus, asyncio.Semaphore())
        async with asyncio.timeout(60):
            await Attempt(await domain.claimed(order), tools).work()
    finally:
        await vcs.close()
        await claude.close()

    row = await domain.row("runs", order.run_id)
    assert (row["state"], row["attempts_spent"], row["not_before"] is not None) == ("queued", 0, True)
    assert "the vcs of this node is away" in row["error"]
    assert (await domain.events(order.job_id))[-1].data["reason"] == "interrupted"
