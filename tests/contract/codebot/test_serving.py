"""When the API is served, as which client, with which limits, and what it says while something is missing."""

import asyncio
from typing import Any

import orjson
import pytest
from openapi_spec_validator import validate

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from services.gateway.__main__ import serve
from services.gateway.dialects.codebot import codebot as codebot_dialect
from services.gateway.dialects.codebot.looking import Looking
from services.gateway.dialects.codebot.settings import CodebotSettings
from services.gateway.settings import GatewaySettings
from services.runtime.settings import EXIT_WRONG_CONFIGURATION
from tests.contract.codebot.conftest import Codebot, running_codebot
from tests.contract.codebot.document import KEY, SUBMISSION
from tests.integration.gateway.conftest import client_of, running_gateway


async def limits(codebot: Codebot) -> tuple[dict[str, int], dict[str, int]]:
    """Of slots and of queued jobs, by client."""
    found = (await codebot.served.native.get("/v1/limits")).json()
    return found["client"]["byName"], found["queuedJobs"]["byName"]


async def test_without_keys_there_is_nothing(database_url: str, nats_url: str) -> None:
    assert codebot_dialect(CodebotSettings(api_keys=" , ")) is None
    async with running_gateway(database_url, nats_url) as native:
        answer = await native.get("/codebot/api/tasks")
    assert answer.status_code == 404


async def test_limits_are_the_documents_where_nobody_set_any(database_url: str, nats_url: str) -> None:
    async with running_codebot(database_url, nats_url, max_workers=None) as codebot:
        assert await limits(codebot) == ({"codebot": 1}, {"codebot": 100})


async def test_an_operators_limit_is_kept_where_the_environment_says_nothing(database_url: str, nats_url: str) -> None:
    async with running_codebot(database_url, nats_url, max_workers=None) as codebot:
        changed = {"client": {"byName": {"codebot": 7}}, "queuedJobs": {"byName": {"codebot": 9}}}
        assert (await codebot.served.native.put("/v1/limits", json=changed)).status_code == 200
    async with running_codebot(database_url, nats_url, max_workers=None) as codebot:
        assert await limits(codebot) == ({"codebot": 7}, {"codebot": 9})
    async with running_codebot(database_url, nats_url, max_workers=3, max_queue_size=4) as codebot:
        assert await limits(codebot) == ({"codebot": 3}, {"codebot": 4})


async def test_tasks_survive_a_restart(database_url: str, nats_url: str) -> None:
    async with running_codebot(database_url, nats_url) as codebot:
        task_id = await codebot.submit()
    async with running_codebot(database_url, nats_url) as codebot:
        assert (await codebot.status(task_id))["status"] == "pending"


async def test_a_client_that_an_operator_disabled_is_served_no_more(
    database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.dialects.tenant.KNOWN_SECONDS", 0.0)
    async with running_codebot(database_url, nats_url) as codebot:
        await codebot.submit()
        (client,) = (await codebot.served.native.get("/v1/clients", params={"name": "codebot"})).json()["items"]
        assert (await codebot.served.native.delete(f"/v1/clients/{client['id']}")).status_code == 200
        answer = await codebot.served.alone.get("/api/tasks")
    assert (answer.status_code, answer.json()["error"]) == (401, "Unauthorized")


async def test_without_postgres_it_says_so_in_its_own_shape(servers: EmbeddedServers) -> None:
    (nowhere, port, own_port) = free_ports(3)
    dialect = codebot_dialect(CodebotSettings(api_keys=KEY, port=own_port))
    assert dialect is not None
    values: dict[str, Any] = {"database_url": f"postgresql://x@127.0.0.1:{nowhere}/x", "nats_url": servers.nats_url}
    stop = asyncio.Event()
    settings = GatewaySettings(**values, port=port, drain_seconds=1.0)
    serving = asyncio.create_task(serve(settings, stop, [dialect]))
    try:
        async with client_of(own_port, KEY) as client:
            async with asyncio.timeout(30):
                while not await _answers(own_port):
                    assert not serving.done()
                    await asyncio.sleep(0.05)
            for method, path in (("POST", "/api/tasks/submit"), ("GET", "/api/tasks"), ("GET", "/health")):
                answer = await client.request(method, path, json=SUBMISSION if method == "POST" else None)
                assert answer.status_code == 503
                assert list(answer.json()) == ["error", "message"]
                assert answer.headers["Retry-After"]
    finally:
        stop.set()
        await asyncio.wait_for(serving, 20)


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_a_port_that_is_taken_is_named(
    codebot: Codebot, database_url: str, nats_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dialect = codebot_dialect(CodebotSettings(api_keys=KEY, port=codebot.served.alone.base_url.port))
    assert dialect is not None
    values: dict[str, Any] = {"database_url": database_url, "nats_url": nats_url, "port": 0}
    with pytest.raises(SystemExit) as ended:
        await serve(GatewaySettings(**values, drain_seconds=1.0), asyncio.Event(), [dialect])
    assert ended.value.code == EXIT_WRONG_CONFIGURATION
    assert "QUARTERDECK_CODEBOT_PORT" in capsys.readouterr().err


async def test_a_fault_of_ours_tells_nothing_of_the_inside(codebot: Codebot, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr(Looking, "newest", broken)
    for client in (codebot.served.alone, codebot.served.mounted):
        answer = await client.get("/api/tasks", headers={"X-Request-Id": "mine"})
        assert (answer.status_code, list(answer.json())) == (500, ["error", "message"])
        assert answer.json()["error"] == "Internal Server Error"
        assert "the inside" not in answer.text
        assert answer.headers["X-Request-Id"] == "mine"
        assert "mine" in answer.json()["message"]


async def test_its_document_is_served_in_both_places(codebot: Codebot) -> None:
    for client, root in ((codebot.served.alone, "/"), (codebot.served.mounted, "/codebot")):
        answer = await client.get("/openapi.json", headers={"Authorization": ""})
        assert answer.status_code == 200
        described = orjson.loads(answer.content)
        validate(described)
        assert described["servers"] == [{"url": root}]
        for path, item in described["paths"].items():
            if "get" in item and "{" not in path:
                assert (await client.get(path)).status_code == 200
