"""Whatever GitHub's schemas allow, and what they do not, is answered at each address and done without an accident."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from pydantic import SecretStr

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from services.gateway.__main__ import serve
from services.gateway.dialects.codebot import codebot
from services.gateway.dialects.codebot.settings import CodebotSettings
from services.gateway.dialects.dialect import Dialect
from services.gateway.dialects.worker import issues
from services.gateway.dialects.worker.models import STATUSES, Error, render
from services.gateway.settings import GatewaySettings
from services.jobs.clients import OwnLimit, OwnLimits
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import client_of
from tests.integration.gateway.vcs_nodes import TOKEN, Plan
from tests.integration.gateway.webhooks.generating import Payloads, schema, variants
from tests.integration.waiting import until_async

SECRET = "it's a secret to everybody"
AMBIGUOUS = {"deployment_status", "secret_scanning_alert_location"}
"""Of which the schema has several variants that one payload meets, and says that it may meet one."""
ADDRESSES = ("/webhooks/github", "/worker/webhooks/github", "/codebot/webhook")
MOST = OwnLimit(100_000)
RULES: dict[str, Any] = {"issues": "all", "reviews": True, "check_fixes": 9}


def worker() -> Dialect:
    """Of the Worker API what is about issues."""
    return Dialect(
        name="worker",
        title="Worker",
        description="Issues",
        operations=issues.operations("https://forge.example"),
        admit=lambda _: None,
        security={},
        error=Error,
        render=render,
        statuses=STATUSES,
        limits=OwnLimits(slots=MOST, queued=MOST),
    )


@pytest.fixture
async def api(
    servers: EmbeddedServers, hooked_database_url: str, database: Database
) -> AsyncIterator[httpx.AsyncClient]:
    (port,) = free_ports(1)
    rules = {f"{name}_{rule}": value for name in ("webhook", "worker", "codebot") for rule, value in RULES.items()}
    values: dict[str, Any] = {"database_url": hooked_database_url, "nats_url": servers.nats_url, "port": port}
    values |= {"vcs_token": TOKEN, "github_webhook_secret": SECRET, "health_address": None, "drain_seconds": 2.0}
    dialect = codebot(CodebotSettings(api_keys=SecretStr("k")))
    assert dialect is not None
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(GatewaySettings(**values, **rules), stop, [dialect, worker()]))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(client_of(port, None))
        await until_async(lambda: is_up(client, serving))
        yield client
        stop.set()
        await asyncio.wait_for(serving, 20)


async def is_up(client: httpx.AsyncClient, serving: asyncio.Task[None]) -> bool:
    if serving.done():
        serving.result()
    try:
        return (await client.get("/codebot/health")).status_code == 200
    except httpx.TransportError:
        return False


async def post(client: httpx.AsyncClient, path: str, body: bytes, event: str, delivery: str) -> httpx.Response:
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": f"sha256={hmac.new(SECRET.encode(), body, 'sha256').hexdigest()}",
    }
    return await client.post(path, content=body, headers=headers)


async def test_every_event_of_githubs_schemas_is_taken_and_done(
    api: httpx.AsyncClient, database: Database, plan: Plan
) -> None:
    document = schema()
    payloads = Payloads(document, seed=6)
    taken: set[str] = set()
    events: set[str] = set()
    for number, (event, reference) in enumerate(variants(document)):
        events.add(event)
        whole = payloads.of(reference)
        is_valid = Draft7Validator({**document, "oneOf": [{"$ref": reference}]}).is_valid(whole)
        assert is_valid or event in AMBIGUOUS, reference
        text, broken = json.dumps(whole).encode(), json.dumps(payloads.broken(whole)).encode()
        here, there = ADDRESSES[number % 3], ADDRESSES[(number + 1) % 3]
        answer = await post(api, here, text, event, f"{number}")
        assert (answer.status_code, set(answer.json())) == (200, {"result"}), (event, here, answer.text)
        taken |= {event} if answer.json()["result"] == "taken" else set()
        assert (await post(api, there, broken, event, f"{number}-broken")).status_code == 200, reference
        if number % 3 == 0:
            cut = text[: len(text) * (number % 9 + 1) // 10]
            assert (await post(api, there, cut, event, f"{number}-cut")).status_code == 400, reference
    assert len(events) > 60
    assert {"issues", "pull_request_review_comment", "installation", "check_run"} <= taken

    async def all_are_done() -> bool:
        async with database.connection() as connection:
            due: int = await connection.fetchval("SELECT count(*) FROM webhook_deliveries WHERE due_at <= now()")
        return due == 0

    await until_async(all_are_done)
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT event, error FROM webhook_deliveries WHERE error IS NOT NULL")
        jobs = await connection.fetchval("SELECT count(*) FROM jobs WHERE metadata ->> 'webhook' = 'issue'")
    assert [dict(row) for row in rows if "went wrong" in row["error"]] == []
    assert jobs > 0


async def test_the_dialects_refuse_what_is_not_signed_in_their_own_words(api: httpx.AsyncClient) -> None:
    for path, names in (
        ("/worker/webhooks/github", {"error", "message", "timestamp"}),
        ("/codebot/webhook", {"error", "message"}),
    ):
        for headers in ({}, {"X-Hub-Signature-256": "sha256=" + "0" * 64}):
            answer = await api.post(path, content=b"{}", headers=headers)
            assert (answer.status_code, set(answer.json())) == (401, names)
        body = b"no JSON"
        answer = await post(api, path, body, "issues", "1")
        assert (answer.status_code, set(answer.json())) == (400, names)
    # Their documents name the signature alone.
    signature = {"X-Hub-Signature-256": f"sha256={hmac.new(SECRET.encode(), b'{}', 'sha256').hexdigest()}"}
    answer = await api.post("/worker/webhooks/github", content=b"{}", headers=signature)
    assert (answer.status_code, answer.json()) == (200, {"result": "nothing to do"})


async def test_an_issue_is_processed_by_name(api: httpx.AsyncClient, plan: Plan) -> None:
    path = "/worker/container/process-issue"
    first = await api.post(path, json={"repository": "a/one", "issueNumber": 12, "extra": 1})
    assert first.status_code == 202, first.text
    job_id = first.json()["jobId"]
    for body in (
        {"repository": {"full_name": "a/one", "name": "one"}, "issue": {"number": 12, "title": "x"}},
        {"repository": {"url": "https://forge.example/a/one.git"}, "issueNumber": 12},
    ):
        again = await api.post(path, json=body)
        assert (again.status_code, again.json()["jobId"]) == (200, job_id), again.text
    for wrong in (
        {},
        {"repository": "a/one"},
        {"repository": "one", "issueNumber": 1},
        {"repository": "../..", "issueNumber": 1},
        {"repository": {"url": "https://elsewhere.example/a/one"}, "issueNumber": 1},
        {"repository": {"url": "https://forge.example/a/one?x"}, "issueNumber": 1},
        {"repository": "a/one", "issueNumber": 0},
        {"repository": "a/one", "issueNumber": 2**31},
        {"repository": ["a/one"], "issueNumber": "x"},
    ):
        answer = await api.post(path, json=wrong)
        assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR"), (wrong, answer.text)
