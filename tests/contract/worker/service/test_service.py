"""Health, metrics, configuration and containers, field by field, and what each of them measures."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from services.gateway.__main__ import serve
from services.gateway.dialects.worker import worker
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.dialects.worker.settings import WorkerSettings
from services.gateway.settings import GatewaySettings
from tests.contract.worker.service.conftest import KEY, Service
from tests.contract.worker.service.document import (
    ERROR,
    HEALTH,
    METRICS,
    PROMETHEUS,
    READ_BY_CLIENTS,
    STATUS,
    shape,
)
from tests.contract.worker.stage import START
from tests.integration.gateway.conftest import client_of
from tests.integration.waiting import until_async

SESSION = {"prompt": "Explain how authentication works", "repository": {"name": "owner/repo"}}


async def read(api: httpx.AsyncClient, path: str, *, status: int = 200) -> dict[str, Any]:
    answer = await api.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    found: dict[str, Any] = answer.json()
    return found


async def begin(service: Service, session_id: str) -> None:
    """Start a session, and stop listening to it at once."""
    async with service.api.stream("POST", START, json=SESSION | {"sessionId": session_id}) as answer:
        assert answer.status_code == 200, await answer.aread()


@asynccontextmanager
async def without_postgres(database_url: str, nats_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway whose database is not there."""
    port, own_port = free_ports(2)
    told: dict[str, Any] = {"database_url": database_url, "nats_url": nats_url, "port": port, "drain_seconds": 1.0}
    dialect = worker(WorkerSettings(port=own_port), ServiceSettings(), "127.0.0.1")
    assert dialect is not None
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(GatewaySettings(**told), stop, [dialect]))
    async with client_of(own_port, None) as api:
        try:
            await until_async(lambda: _listens(api))
            yield api
        finally:
            stop.set()
            await asyncio.wait_for(serving, 30)


async def _listens(api: httpx.AsyncClient) -> bool:
    try:
        return (await api.get("/openapi.json")).is_success
    except httpx.TransportError:
        return False


async def refused(service: Service) -> httpx.Response:
    """The answer to a session that must not be started, which would else go on for long."""
    async with service.api.stream("POST", START, json=SESSION) as answer:
        assert answer.status_code == 429
        await answer.aread()
    assert answer.json()["error"] == "QUOTA_EXCEEDED"
    assert shape(answer.json()) == shape(ERROR)
    return answer


async def test_health_is_as_printed_once_all_is_set_up(service: Service) -> None:
    await service.store_app()
    await service.store_key()
    await service.use_up(tokens=50_000, usd=2.5)
    await service.domain.execute("INSERT INTO webhook_deliveries VALUES ('github', '1', 'ping')")
    await begin(service, "one that is under way")
    run = await service.worker.stage.begin("one that is under way")
    await service.domain.execute("DELETE FROM nodes WHERE kind = 'agent'")
    await service.tell_agents("agent-a", "agent-b")
    found = await read(service.api, "/health")
    assert shape(found) == shape(HEALTH)
    assert (found["status"], found["environment"], found["version"]) == (
        "healthy",
        "production",
        version("quarterdeck"),
    )
    assert {name: each["status"] for name, each in found["components"].items()} == {
        name: each["status"] for name, each in HEALTH["components"].items()
    }
    assert found["components"]["containers"]["message"].startswith("2 live, for 8 runs at once; 1 ")
    assert found["quota"] | {"reason": "", "maxConcurrentSessions": 5} == HEALTH["quota"] | {"reason": ""}
    assert found["quota"]["maxConcurrentSessions"] == 2
    assert found["metrics"]["containers"]["active"] == 1
    github = found["github"]
    assert (github["appId"], github["installationId"], github["repositoryCount"]) == ("2601422", "789012", 5)
    assert github["totalWebhooks"] == 1
    assert datetime.fromisoformat(github["lastWebhookAt"]) <= datetime.fromisoformat(found["timestamp"])
    await service.worker.stage.fail(run, "it failed")
    metrics = (await read(service.api, "/health"))["metrics"]
    assert metrics["containers"]["active"] == 0
    assert metrics["containers"]["errors"] >= 1


async def test_health_is_degraded_where_neither_github_nor_claude_is_configured(service: Service) -> None:
    found = await read(service.api, "/health")
    assert found["status"] == "degraded"
    for name in ("githubApp", "claudeConfig"):
        assert found["components"][name] == {"status": "not configured", "configured": False}
    assert found["components"]["containers"]["status"] == "unavailable"
    assert (found["github"]["appId"], found["github"]["lastWebhookAt"]) == (None, None)
    await service.store_key()
    assert (await read(service.api, "/healthz"))["status"] == "healthy"


async def test_a_spent_quota_degrades_and_no_session_is_started_until_midnight(service: Service) -> None:
    await service.store_key()
    for used, words in (({"tokens": 1_000_000}, "1,000,000 tokens"), ({"usd": 50.5}, "50 USD")):
        await service.domain.execute("DELETE FROM spending")
        await service.use_up(**used)
        found = await read(service.api, "/health")
        assert (found["status"], found["quota"]["allowed"]) == ("degraded", False)
        assert words in found["quota"]["reason"]
        answer = await refused(service)
        assert words in answer.json()["message"]
        assert "T00:00:00.000Z" in answer.json()["message"]
        assert 1 <= int(answer.headers["Retry-After"]) <= 86_400


async def test_no_more_sessions_at_once_than_the_quota_has(service: Service) -> None:
    for number in range(2):
        await begin(service, f"place {number}")
    assert "at most 2" in (await refused(service)).json()["message"]
    quota = (await read(service.api, "/health"))["quota"]
    assert (quota["activeSessions"], quota["allowed"]) == (2, False)
    for number in range(2):
        assert (await service.api.delete(f"/interactive/place {number}")).status_code == 200
    await begin(service, "after all")
    await service.worker.stage.play("after all", turns=1)


async def test_runs_under_way_obey_the_quota_too(service: Service) -> None:
    await read(service.api, "/health")
    budgets = (await service.worker.api.native.get("/v1/budgets")).json()
    assert budgets["clientDay"]["byName"]["worker"] == {"tokens": 1_000_000, "usd": 50}
    changed = {"clientDay": {"byName": {"worker": {"tokens": 7, "usd": 1.5}}}}
    try:
        assert (await service.worker.api.native.put("/v1/budgets", json=changed)).status_code == 200
        quota = (await read(service.api, "/health"))["quota"]
        assert (quota["maxDailyTokens"], quota["maxDailyCost"]) == (7, 1.5)
    finally:
        assert (await service.worker.api.native.put("/v1/budgets", json=budgets)).status_code == 200


async def test_metrics_are_as_printed_and_add_up(service: Service) -> None:
    await service.domain.execute("INSERT INTO webhook_deliveries VALUES ('github', '1', 'ping')")
    before = await read(service.api, "/metrics")
    assert shape(before) == shape(METRICS)
    for path in ("/nothing/here", "/interactive/status?sessionId=none", "/singleton"):
        await service.api.get(path)
    after = await read(service.worker.api.mounted, "/metrics")
    for counts in (after["requests"]["byRoute"], after["requests"]["byStatus"]):
        assert sum(counts.values()) == after["requests"]["total"] == before["requests"]["total"] + 4
    routes = after["requests"]["byRoute"]
    assert {"/metrics", "/singleton", "/interactive/status", "unmatched"} <= set(routes)
    assert not any("/worker" in route or "nothing" in route for route in routes)
    assert datetime.fromisoformat(after["deploymentStartTime"]) < datetime.now(UTC)
    assert after["uptime"] >= before["uptime"]


async def test_metrics_for_prometheus_are_as_printed(service: Service) -> None:
    answer = await service.api.get("/metrics/prometheus")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    printed = PROMETHEUS.splitlines()
    found = answer.text.splitlines()
    for told, line in zip(found, printed, strict=False):
        number = r"\d+\.\d\d" if "." in line else r"\d+"
        pattern = re.escape(line) if line.startswith("#") or not line else rf"{line.split()[0]} {number}"
        assert re.fullmatch(pattern, told)
    assert len(found) == len(printed) + 4
    assert re.search(r"\n# TYPE claude_code_uptime_seconds gauge\nclaude_code_uptime_seconds \d+\.\d+\n$", answer.text)


async def test_the_configuration_is_as_printed_once_all_is_set_up(service: Service) -> None:
    before = await read(service.api, "/gh-status")
    assert before["github"] == {"configured": False, "appId": None, "owner": None, "repositoryCount": 0}
    assert before["claude"] == {"configured": False, "setupAt": None}
    await service.store_app()
    await service.store_key()
    found = await read(service.api, "/gh-status")
    assert shape(found) == shape(STATUS | READ_BY_CLIENTS)
    assert found == STATUS | READ_BY_CLIENTS | {"claude": {"configured": True, "setupAt": found["claude"]["setupAt"]}}
    assert KEY not in (await service.api.get("/gh-status")).text


async def test_containers_are_agents_that_live(service: Service) -> None:
    for path in ("/container", "/lb", "/singleton"):
        answer = await service.api.get(path)
        assert (answer.status_code, answer.json()["error"]) == (503, "INTERNAL_ERROR")
        assert shape(answer.json()) == shape(ERROR)
    await service.tell_agents("agent-a", "agent-b")
    healthy = {"status": "healthy", "message": "Container is healthy"}
    for path in ("/container", "/lb"):
        found = await read(service.api, path)
        assert found.pop("instanceId") in ("agent-a", "agent-b")
        assert found == healthy
    for _ in range(3):
        assert await read(service.api, "/singleton") == healthy | {"instanceId": "agent-a"}


async def test_without_postgres_it_is_unhealthy_and_says_all_the_same_fields(
    servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.postgres.RETRY_SECONDS", 0.1)
    (nowhere,) = free_ports(1)
    url = f"postgresql://x@127.0.0.1:{nowhere}/x"
    async with without_postgres(url, servers.nats_url) as api:
        answer = await api.get("/health")
        assert answer.status_code == 503
        found = answer.json()
        assert found["status"] == "unhealthy"
        assert [name for name, _ in shape(found)] == [name for name, _ in shape(HEALTH)]
        assert (found["quota"]["allowed"], found["components"]["durableObjects"]["status"]) == (False, "unavailable")
        assert answer.headers["X-Request-Count"]
        other = await api.get("/gh-status")
        assert (other.status_code, other.json()["error"]) == (503, "INTERNAL_ERROR")


async def test_the_document_describes_it(service: Service) -> None:
    described = await read(service.api, "/openapi.json")
    validate(described)
    assert {"/health", "/metrics", "/gh-status", "/gh-setup", "/claude-setup", "/singleton"} <= set(described["paths"])
