"""Who may use the Worker API, and how many sessions at once."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.gateway.dialects.worker import worker
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.dialects.worker.settings import WorkerSettings
from tests.contract.worker.conftest import Worker, running_worker
from tests.contract.worker.stage import START
from tests.integration.waiting import until_async

KEY = "worker-key"
SESSIONS = 2


@pytest.mark.parametrize(
    ("host", "settings", "is_served"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("0.0.0.0", {}, False),
        ("0.0.0.0", {"api_key": KEY}, True),
        ("gateway.example", {}, False),
        ("gateway.example", {"no_auth": True}, True),
    ],
)
def test_it_is_open_to_others_only_where_that_is_said(host: str, settings: dict[str, Any], is_served: bool) -> None:
    assert (worker(WorkerSettings(**settings), ServiceSettings(), host) is not None) is is_served


async def test_a_key_is_needed_where_there_is_one(database_url: str, nats_url: str) -> None:
    settings = {"api_key": KEY, "max_sessions": SESSIONS}
    async with running_worker(database_url, nats_url, settings=settings, key=KEY) as running:
        await assert_without_a_key_nothing_is_told(running)
        await assert_no_more_sessions_start_at_once(running)


async def assert_without_a_key_nothing_is_told(running: Worker) -> None:
    async with httpx.AsyncClient(base_url=running.api.address, trust_env=False) as api:
        for asked in (
            api.post(START, json={"prompt": "x"}),
            api.get(START, params={"sessionId": "x"}),
            api.get("/interactive/status", params={"sessionId": "x"}, headers={"Authorization": "Bearer other"}),
            api.delete("/interactive/x", headers={"X-API-Key": "other"}),
        ):
            answer = await asked
            assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")
        found = await api.get("/interactive/status", params={"sessionId": "x"}, headers={"X-API-Key": KEY})
        page = f"/changesets/{uuid4()}"
        asked_for = await api.get(page)
        shown = await api.get(page, auth=("", KEY))
    assert found.status_code == 404
    assert (asked_for.status_code, asked_for.headers["WWW-Authenticate"].split()[0]) == (401, "Basic")
    assert shown.status_code == 404


async def assert_no_more_sessions_start_at_once(running: Worker) -> None:
    answers: list[tuple[int, str]] = []
    done = asyncio.Event()

    async def start() -> None:
        async with running.api.alone.stream("POST", START, json={"prompt": "x"}) as answer:
            text = "" if answer.status_code == 200 else (await answer.aread()).decode()
            answers.append((answer.status_code, text))
            await done.wait()

    async def all_answered() -> bool:
        return len(answers) == 2 * SESSIONS

    async with asyncio.TaskGroup() as group:
        for _ in range(2 * SESSIONS):
            group.create_task(start())
        await until_async(all_answered)
        done.set()
    assert sorted(status for status, _ in answers) == [200] * SESSIONS + [429] * SESSIONS
    assert all("QUOTA_EXCEEDED" in text for status, text in answers if status != 200)
