"""`codebot serve` as it is typed: the lines of the document, a task from submission to pull request, the end."""

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.demo.git import git
from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.ports import free_ports
from tests.acceptance.stacks import PROMPT, bare_origin
from tests.contract.codebot.document import KEY
from tests.integration.gateway.conftest import client_of

START_SECONDS = 90
WORK_SECONDS = 60
STOP_SECONDS = 30
CODEBOT = ("-c", "from quarterdeck.cli.serve import codebot_main; codebot_main()", "serve")
QUARTERDECK = ("-m", "quarterdeck", "serve", "--dialect", "codebot")


async def start(*words: str, folder: Path | None = None, **variables: str) -> Process:
    """A command of ours, with the offline model and servers of its own. ``folder``: where it is typed."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", *words), env=base_environment() | variables, cwd=folder, stdout=PIPE, stderr=PIPE
    )


async def printed(process: Process, lines: int) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        return [(await process.stdout.readline()).decode().rstrip("\n") for _ in range(lines)]


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """Of a server with two keys, told by a file, and two workers, once it has said that it is up."""
    (number,) = free_ports(1)
    (tmp_path / ".env").write_text(f"CODEBOT_API_KEYS={KEY},secret-key-2\nCODEBOT_MAX_WORKERS=7\n")
    words = ("--port", str(number), "--work-dir", "data", "--debug")
    process = await start(*CODEBOT, *words, folder=tmp_path, CODEBOT_MAX_WORKERS="2")
    try:
        assert await printed(process, 5) == [
            "HTTP API enabled with 2 API key(s)",
            f"Starting server on port {number}...",
            f"API endpoints: http://localhost:{number}/api/tasks/submit",
            f"               http://localhost:{number}/api/tasks/{{task_id}}/status",
            f"               http://localhost:{number}/api/tasks",
        ]
        yield number
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), STOP_SECONDS)
    assert process.returncode == 0


async def test_a_task_from_its_submission_to_its_pull_request(port: int, tmp_path: Path) -> None:
    origin = bare_origin(tmp_path, "one")
    submission = {"repository_url": str(origin), "description": PROMPT, "ticket_id": "FEAT-1", "ticket_summary": "us"}
    async with client_of(port, KEY) as client:
        submitted = await client.post("/api/tasks/submit", json=submission)
        assert submitted.status_code == 202, submitted.text
        task: dict[str, Any] = {}
        async with asyncio.timeout(WORK_SECONDS):
            while task.get("status") not in ("completed", "failed"):
                await asyncio.sleep(0.1)
                task = (await client.get(f"/api/tasks/{submitted.json()['task_id']}/status")).json()
        assert task["status"] == "completed", task
        result = task["result"]
        assert (await client.get(result["pr_url"], auth=("", KEY))).status_code == 200
    assert re.fullmatch(r"u/codebot/FEAT-1/[0-9a-f]{7}/us", result["branch_name"])
    assert result["outcome"] == "delivered"
    assert result["work_dir"].startswith(str(tmp_path / "data"))
    assert b"the color" in git("show", f"{result['branch_name']}:src/part_0.py", folder=origin)


@pytest.mark.parametrize("command", [(*CODEBOT, "--work-dir"), (*QUARTERDECK, "--data-dir")])
@pytest.mark.parametrize("keys", ["", " , "])
async def test_it_does_not_start_without_keys(tmp_path: Path, command: tuple[str, ...], keys: str) -> None:
    process = await start(*command, str(tmp_path), CODEBOT_API_KEYS=keys)
    out, err = await asyncio.wait_for(process.communicate(), START_SECONDS)
    assert (process.returncode, out) == (1, b"")
    assert "CODEBOT_API_KEYS" in err.decode()


async def test_it_does_not_start_on_a_port_that_is_taken(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        taken = str(server.sockets[0].getsockname()[1])
        process = await start(*QUARTERDECK, "--data-dir", str(tmp_path), CODEBOT_API_KEYS=KEY, PORT=taken)
        _, err = await asyncio.wait_for(process.communicate(), START_SECONDS)
    assert process.returncode == 1
    assert f"127.0.0.1:{taken}" in err.decode()
