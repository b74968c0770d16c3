"""`quarterdeck serve --dialect worker` as it is typed: a session by the Python client, from its start to its link."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from quarterdeck.demo.git import git
from quarterdeck.stack.ports import free_ports
from quarterdeck.worker import ClaudeCodeWorker, ClaudeDelta, ClaudeStart, Complete, Connected, FileChange
from tests.acceptance.stacks import FILES, PROMPT, bare_origin
from tests.contract.codebot.test_serve_command import STOP_SECONDS, WORK_SECONDS, printed, start

COMMAND = ("-m", "quarterdeck", "serve", "--dialect", "worker")


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """Of the API, once the command has said that it is up."""
    (port,) = free_ports(1)
    process = await start(*COMMAND, "--port", str(port), "--data-dir", str(tmp_path / "data"))
    try:
        assert await printed(process, 6) == [
            "Worker API, for this machine alone",
            f"Starting server on port {port}...",
            f"API endpoints: http://localhost:{port}/interactive/start",
            f"               http://localhost:{port}/interactive/status",
            f"               http://localhost:{port}/webhooks/github",
            f"               http://localhost:{port}/health",
        ]
        yield f"http://localhost:{port}"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), STOP_SECONDS)
    assert process.returncode == 0


async def test_a_session_from_its_start_to_its_pull_request(address: str, tmp_path: Path) -> None:
    origin = bare_origin(tmp_path, "one")
    async with ClaudeCodeWorker(address) as client, asyncio.timeout(WORK_SECONDS):
        session = await client.interactive.start(PROMPT, str(origin), options={"createPR": True})
        events = [event async for event in session.events()]
        status = await session.status()
        health = await client.health()
    complete = events[-1]
    assert isinstance(events[0], Connected)
    assert isinstance(complete, Complete)
    turns = [event.turn for event in events if isinstance(event, ClaudeStart)]
    assert turns == list(range(1, complete.turns + 1))
    assert {event.turn for event in events if isinstance(event, ClaudeDelta)} <= set(turns)
    changed = {event.message for event in events if isinstance(event, FileChange)}
    assert changed == {f"modified {path}" for path in FILES}
    assert (status.status, status.current_turn) == ("completed", complete.turns)
    assert (health.quota.active_sessions, health.metrics.containers.total) == (0, 1)
    assert complete.pull_request_url is not None
    async with httpx.AsyncClient(trust_env=False) as browser:
        page = await browser.get(complete.pull_request_url)
    (branch,) = git("for-each-ref", "--format=%(refname:short)", "refs/heads/quarterdeck", folder=origin).split()
    assert page.status_code == 200
    assert branch.decode() in page.text
    assert b"the color" in git("show", f"{branch.decode()}:src/part_0.py", folder=origin)
