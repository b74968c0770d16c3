"""When the API is served, with which limits, what its health says, and what outlives a restart."""

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts.v1 import vcs_pb2
from services.gateway.dialects.orchestrator import orchestrator as orchestrator_dialect
from services.gateway.dialects.orchestrator.settings import OrchestratorSettings
from services.runtime.postgres import Database
from tests.contract.orchestrator.conftest import SECRET, Orchestrator, answered, dialect_of
from tests.contract.serving import running_api
from tests.integration.gateway.conftest import running_gateway
from tests.integration.gateway.vcs_nodes import TOKEN, vcs_node

AN_AGENT = "INSERT INTO nodes (name, kind, capacity, seen_at) VALUES ('a', 'agent', 1, now() + interval '1 hour')"


async def test_without_a_secret_there_is_nothing(database_url: str, servers: EmbeddedServers) -> None:
    assert orchestrator_dialect(OrchestratorSettings(secret="")) is None
    async with running_gateway(database_url, servers.nats_url) as native:
        assert (await native.get("/orchestrator/health")).status_code == 404


async def test_health_tells_what_is_there_and_jobs_survive_a_restart(
    database_url: str, servers: EmbeddedServers
) -> None:
    database = Database(database_url, size=2, name="test")
    async with database.connection() as connection:
        await connection.execute(AN_AGENT)
    async with vcs_node(database) as plan:
        plan.answers["ListRepositories"] = [vcs_pb2.ForgeRepository(full_name="acme/one")]
        async with running_api(database_url, servers.nats_url, dialect_of, key=SECRET, vcs_token=TOKEN) as served:
            orchestrator = Orchestrator(served, database)
            kept = await orchestrator.client()
            first = (await orchestrator.job(kept))["id"]
            await orchestrator.job(kept)
            for _ in range(2):
                health = await answered(served.alone.get("/health"), 200)
        assert len(plan.requests(vcs_pb2.ListRepositoriesRequest)) == 1, "the forge is not asked each time"
    assert health["queue"] == {"running": 0, "queued": 2, "maxConcurrent": 2}
    assert (health["claude"]["authenticated"], health["git"]["authenticated"]) == (True, True)
    async with running_api(database_url, servers.nats_url, dialect_of, key=SECRET) as served:
        orchestrator = Orchestrator(served, database)
        assert (await orchestrator.shown(first))["status"] == "queued"
        changed = {"client": {"byName": {"orchestrator": 7}}}
        await answered(served.native.put("/v1/limits", json=changed), 200)
        assert (await answered(served.alone.get("/queue"), 200))["maxConcurrent"] == 7
        assert [len((await answered(served.alone.get("/clients"), 200))["clients"])] == [1]
    await database.close()


@pytest.mark.parametrize("told", [None, 5])
def test_jobs_at_once(told: int | None) -> None:
    slots = dialect_of(1, max_concurrent_jobs=told).limits.slots
    assert (slots.most, slots.is_told) == (told or 2, told is not None)
