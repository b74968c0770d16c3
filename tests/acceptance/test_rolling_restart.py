"""Every service is restarted under load, one after the other: nothing is lost, and no request fails for good."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from services.contracts.rest import Job
from tests.acceptance.stacks import PROMPT, Stack, assert_delivered_once, bare_origin, running_stack, until

pytestmark = pytest.mark.timeout(180)
SERVICES = ("gateway", "scheduler", "agent-1", "agent-2", "vcs", "gateway")
MOST_TRIES = 160
PAUSE_SECONDS = 0.25


class Load:
    """A client that tries again what HTTP lets it: a connection that was refused or broke, and a 503."""

    def __init__(self, stack: Stack, origins: list[Path]) -> None:
        self._origins = origins
        self._http = httpx.AsyncClient(
            base_url=stack.client.address, headers={"Authorization": f"Bearer {stack.api_key}"}, timeout=30
        )
        self.accepted: list[str] = []
        self.failures: list[str] = []
        self._stop = asyncio.Event()

    async def run(self) -> None:
        async with self._http, asyncio.TaskGroup() as group:
            for origin in self._origins:
                group.create_task(self._submit_and_read(origin))

    def stop(self) -> None:
        self._stop.set()

    async def _submit_and_read(self, origin: Path) -> None:
        body = {"prompt": PROMPT, "repositories": [{"url": str(origin)}], "name": f"{origin.stem} {uuid4().hex[:6]}"}
        key = {"Idempotency-Key": uuid4().hex}
        job = await self._answered(lambda: self._http.post("/v1/jobs", json=body, headers=key))
        self.accepted.append(job["id"])
        while not self._stop.is_set():
            await self._answered(lambda: self._http.get(f"/v1/jobs/{job['id']}"))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _answered(self, ask: Callable[[], Awaitable[httpx.Response]]) -> dict[str, str]:
        for _ in range(MOST_TRIES):
            try:
                answer = await ask()
            except httpx.TransportError:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if answer.is_success:
                body: dict[str, str] = answer.json()
                return body
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE or "Retry-After" not in answer.headers:
                self.failures.append(
                    f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
                )
                raise AssertionError(self.failures[-1])
            await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError("the gateway did not come back")


@pytest.mark.slow  # the short run of chaos stops each service in order, too
async def test_a_rolling_restart_under_load_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_OFFLINE_TURN_DELAY_MS", "300")
    origins = [bare_origin(tmp_path, f"widget-{number}") for number in range(12)]
    async with running_stack(tmp_path / "data", agents=2) as stack:
        load = Load(stack, origins)
        running = asyncio.create_task(load.run())
        await until(_accepted_some(load))
        for name in SERVICES:
            await _restart(stack, name)
        load.stop()
        await running

        assert load.failures == []
        assert len(load.accepted) == len(origins)
        jobs = {job.id: job async for job in stack.client.jobs()}
        assert len(jobs) == len(origins), "a submit that was tried again made no second job"
        for job_id in load.accepted:
            await _assert_ended_well(stack, origins, await stack.client.job(job_id))


def _accepted_some(load: Load) -> Callable[[], Awaitable[bool]]:
    async def some() -> bool:
        return bool(load.accepted)

    return some


async def _restart(stack: Stack, name: str) -> None:
    """Ask the process to end, and wait until another is in its place and healthy."""
    old = await stack.signal(name, signal.SIGTERM)

    async def replaced() -> bool:
        return await stack.pid(name) != old

    await until(replaced)
    await stack.until_healthy()


async def _assert_ended_well(stack: Stack, origins: list[Path], job: Job) -> None:
    done = await stack.finished(job)
    assert done.state == "completed", done
    (run,) = await stack.runs(job)
    assert run.exit_reason is None
    (origin,) = [origin for origin in origins if str(origin) == run.repository]
    assert_delivered_once(origin, run)
