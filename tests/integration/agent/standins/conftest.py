"""The agent of the tests beside, with one of the stand-ins as its model service; runs that go side by side."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from services.agent.model import Patience, client
from tests.integration.agent import agents
from tests.integration.agent.messages_server import MessagesServer
from tests.integration.agent.standins.servers import Aimock, Llmock, running_aimock, running_llmock

INSTALL_SECONDS = 120
# As the agent's own, but shorter: each wait is at least as long as the one before.
PATIENCE = Patience(tries=4, shortest_seconds=0.2, longest_seconds=10, longest_wait=timedelta(seconds=3))
SILENCE_SECONDS = 1.0
"""Without a byte a stream is taken to be dead."""


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """How agents that start in these tests wait for their model."""
    monkeypatch.setattr(agents, "HASTE", PATIENCE)
    monkeypatch.setattr(client, "_SILENCE_SECONDS", SILENCE_SECONDS)


@pytest.fixture
def model(model_address: str) -> MessagesServer:
    """In the place of the tests' own server, which is not started: only its address is used."""
    server = MessagesServer()
    server.url = model_address
    return server


@pytest.fixture(scope="session")
async def llmocks() -> AsyncIterator[Callable[[tuple[str, ...]], Awaitable[Llmock]]]:
    """A server for each set of flags, started when it is first asked for."""
    started: dict[tuple[str, ...], Llmock] = {}
    async with AsyncExitStack() as stack:

        async def with_flags(flags: tuple[str, ...]) -> Llmock:
            if flags not in started:
                started[flags] = await stack.enter_async_context(running_llmock(*flags))
            return started[flags]

        yield with_flags


@pytest.fixture
def flags() -> tuple[str, ...]:
    """Of `llmock serve`; tests parametrize it."""
    return ()


@pytest.fixture
async def llmock_server(
    llmocks: Callable[[tuple[str, ...]], Awaitable[Llmock]], flags: tuple[str, ...]
) -> AsyncIterator[Llmock]:
    """With nothing seen and nothing queued."""
    server = await llmocks(flags)
    await server.call("POST", "/_llmock/reset")
    yield server
    await server.call("POST", "/_llmock/reset")


@pytest.fixture(scope="session")
def aimock_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project beside, with its locked package."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("node or npm is not installed: aimock cannot be run")
    folder = tmp_path_factory.mktemp("aimock") / "project"
    shutil.copytree(Path(__file__).parent / "aimock", folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "fixtures").mkdir()
    # With the whole environment: it tells npm where its registry is.
    installing = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert installing.returncode == 0, installing.stdout
    return folder


@pytest.fixture(scope="session")
async def aimocks(aimock_folder: Path) -> AsyncIterator[Aimock]:
    async with running_aimock(aimock_folder) as server:
        yield server


@pytest.fixture
async def aimock_server(aimocks: Aimock) -> Aimock:
    """With nothing seen and no fixtures."""
    await aimocks.call("POST", "/__aimock/reset")
    await aimocks.call("DELETE", "/__aimock/chaos")
    return aimocks
