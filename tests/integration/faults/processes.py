"""Services as processes over a test's own servers, and a client that does not give up: together the path of a run."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import httpx

from quarterdeck.stack.environment import base_environment
from tests.integration.faults.failpoints import LAST_LIFE

SCHEDULER = "services.scheduler"
GATEWAY = "services.gateway"
AGENT = "tests.integration.faults.answering_agent"
API_KEY = "qd_test_key"
STOP_SECONDS = 15
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.05
SUBMITTED = (200, 201)


@dataclass
class Service:
    """One started process and its log."""

    name: str
    process: Process
    log: Path

    @classmethod
    async def start(
        cls, module: str, log: Path, variables: Mapping[str, str], *, failpoints: Sequence[str] = ()
    ) -> Service:
        """``failpoints``: where its first lives are to end, one after the other."""
        main = f"{module}.__main__" if module.startswith("services.") else module
        words = ["tests.integration.faults.failpoints", main, *failpoints] if failpoints else [module]
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *words),
                env=base_environment() | dict(variables),
                stdout=output,
                stderr=output,
            )
        return cls(module, process, log)

    async def stop(self) -> None:
        """End it by SIGTERM; by SIGKILL where that is not enough."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def lines(self) -> list[str]:
        return (await asyncio.to_thread(self.log.read_text)).splitlines()

    async def in_last_life(self) -> bool:
        """Whether it has died at each of its failpoints."""
        lines = await self.lines()
        assert self.process.returncode is None, "\n".join(lines[-30:])
        return LAST_LIFE in lines


@dataclass
class Submitter:
    """Submits jobs, each under an Idempotency-Key of its own, and asks again until it has an answer."""

    client: httpx.AsyncClient
    accepted: dict[str, set[UUID]] = field(default_factory=dict)
    """Which job, or by mistake jobs, each key was answered with."""
    asked_again: int = 0

    async def submit(self, prompt: str = "say hello", *, key: str | None = None) -> UUID:
        """Raises ``TimeoutError`` where nobody accepts it within 60 s."""
        key = key or str(uuid4())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (job_id := await self._ask(prompt, key)) is None:
                self.asked_again += 1
                await asyncio.sleep(POLL_SECONDS)
        self.accepted.setdefault(key, set()).add(job_id)
        return job_id

    async def _ask(self, prompt: str, key: str) -> UUID | None:
        try:
            answer = await self.client.post(
                "/v1/jobs", json={"prompt": prompt, "kind": "task"}, headers={"Idempotency-Key": key}
            )
        except httpx.TransportError:
            return None
        assert answer.status_code in (*SUBMITTED, 503), answer.text
        return UUID(answer.json()["id"]) if answer.status_code in SUBMITTED else None

    async def keep_submitting(self, enough: asyncio.Event, *, pause_seconds: float = POLL_SECONDS) -> None:
        """One job after the other, with a pause that is the load's pace, until ``enough``."""
        while not enough.is_set():
            await self.submit()
            await asyncio.sleep(pause_seconds)
