"""The database away: said plainly, and over as soon as it is back."""

import httpx
import pytest

from tests.contract.cody_batch.conftest import dialect
from tests.contract.serving import running_api
from tests.integration.gateway.test_outages import Proxy, proxy, through
from tests.integration.gateway.vcs_nodes import TOKEN
from tests.integration.waiting import until_async

__all__ = ["proxy"]


async def is_healthy(api: httpx.AsyncClient) -> bool:
    return (await api.get("/health")).status_code == 200


async def test_health_says_that_the_database_is_away(
    database_url: str, nats_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once the API would ask again whom it acts as."""
    monkeypatch.setattr("services.gateway.dialects.tenant.KNOWN_SECONDS", 0.0)
    await proxy.open()
    async with running_api(through(proxy, database_url), nats_url, dialect, vcs_token=TOKEN) as api:
        assert await is_healthy(api.alone)
        await proxy.close()
        health, jobs = await api.alone.get("/health"), await api.alone.get("/jobs")
        assert health.status_code == 503
        assert health.json()["status"] == "unhealthy"
        assert health.json()["dependencies"] == {"dynamodb": "unhealthy", "github": "unhealthy", "claude": "unhealthy"}
        assert (jobs.status_code, list(jobs.json())) == (503, ["error"])
        assert jobs.headers["Retry-After"]
        await proxy.open()
        await until_async(lambda: is_healthy(api.alone))
        assert (await api.alone.get("/jobs")).status_code == 200
