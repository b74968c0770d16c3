"""The npm package `eventsource`, unmodified, reads sessions: by GET, and by POST as the document's example does."""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.contract.worker.conftest import Worker
from tests.contract.worker.stage import ODD_TEXT, TURN, started
from tests.integration.npm import NODE, installed

_PROJECT = Path(__file__).parent / "node"
_SCRIPT = "follow.mjs"
_FOLLOW_SECONDS = 60


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it finds its package: beside itself."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "node_modules").symlink_to(installed(_PROJECT) / "node_modules")
    return Path(shutil.copy(_PROJECT / _SCRIPT, folder))


async def followed(script: Path, *words: str) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), str(script), *words),
        env={"PATH": os.environ["PATH"], "NO_PROXY": "*"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), _FOLLOW_SECONDS)
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.decode().split("\n") if line]


@pytest.mark.parametrize(("method", "break_after"), [("GET", 0), ("POST", 0), ("POST", 6), ("GET", 6)])
async def test_eventsource_reads_a_session(shared_worker: Worker, script: Path, method: str, break_after: int) -> None:
    session_id, stage = f"session {uuid4()}", shared_worker.stage
    if method == "GET":
        async with started(shared_worker.api.alone, sessionId=session_id):
            pass
    following = asyncio.create_task(followed(script, shared_worker.api.address, method, session_id, str(break_after)))
    await stage.play(session_id)
    seen = await following
    assert [each["event"] for each in seen if each["event"] != "status"] == ["connected", *TURN, *TURN, "complete"]
    deltas = [each["data"]["content"] for each in seen if each["event"] == "claude_delta"]
    assert deltas == ["say 1: ", ODD_TEXT, "say 2: ", ODD_TEXT]
    assert len({each["id"] for each in seen}) == len(seen)
