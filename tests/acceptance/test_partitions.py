"""A whole stack whose lines to Postgres and NATS go half-open, or break, under a run: it ends once, by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from quarterdeck import Client
from quarterdeck.stack.detached import read_status, start_detached, stop_detached
from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.errors import StackNotRunningError
from quarterdeck.stack.options import StackOptions
from services.contracts.rest import Run
from services.contracts.words import RunState
from tests.acceptance.stacks import Stack, assert_delivered_once, bare_origin, until
from tests.integration.faults.proxy import Link

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
TURN_DELAY_MS = 500


@dataclass
class LinkedStack:
    stack: Stack
    postgres: Link
    nats: Link

    def stall(self, name: str) -> None:
        for link in self._links(name):
            link.stall()

    def flow(self) -> None:
        for link in self._links("both"):
            link.flow()

    def _links(self, name: str) -> list[Link]:
        return {"postgres": [self.postgres], "nats": [self.nats], "both": [self.postgres, self.nats]}[name]


@pytest.fixture(scope="module")
async def linked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LinkedStack]:
    """Two agents, a slow model, and servers that are reached over links."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUARTERDECK_OFFLINE_TURN_DELAY_MS", str(TURN_DELAY_MS))
        async with EmbeddedServers() as servers, Link(servers.database_url) as postgres, Link(servers.nats_url) as nats:
            options = StackOptions(
                data_dir=tmp_path_factory.mktemp("stack"),
                agents=2,
                database_url=postgres.url,
                nats_url=nats.url,
                anthropic_api_key=None,
                claude_model=None,
            )
            info = await start_detached(options)
            try:
                async with Client(info.address, info.api_key) as client:
                    yield LinkedStack(Stack(options, client, info.api_key), postgres, nats)
            finally:
                with suppress(StackNotRunningError):
                    await stop_detached(options.data_dir)


@pytest.mark.parametrize("name", ["postgres", "nats", "both"])
async def test_a_job_ends_once_although_a_line_was_half_open(linked: LinkedStack, tmp_path: Path, name: str) -> None:
    stack = linked.stack
    origins = [bare_origin(tmp_path, f"widget-{number}") for number in range(2)]
    job = await stack.submit(*origins)
    await stack.until_run(job, lambda run: run.usage.turns >= 1)
    linked.stall(name)
    try:
        await until(lambda: _is_noticed(stack))
    finally:
        linked.flow()

    assert (await stack.finished(job)).state == "completed"
    for origin, run in zip(origins, await stack.runs(job), strict=True):
        assert_delivered_once(origin, run)
    await stack.until_healthy()


async def _is_noticed(stack: Stack) -> bool:
    return not (await read_status(stack.options.data_dir)).healthy


def _has_come_to(turns: int, run: Run) -> bool:
    return run.usage.turns >= turns or run.state is RunState.COMPLETED


async def test_a_job_ends_once_although_its_lines_are_cut_all_the_time(linked: LinkedStack, tmp_path: Path) -> None:
    stack = linked.stack
    origin = bare_origin(tmp_path, "widget")
    job = await stack.submit(origin)
    for turns in range(1, 4):
        await stack.until_run(job, partial(_has_come_to, turns))
        linked.postgres.cut()
        linked.nats.cut()

    assert (await stack.finished(job)).state == "completed"
    assert_delivered_once(origin, (await stack.runs(job))[0])
    await stack.until_healthy()
