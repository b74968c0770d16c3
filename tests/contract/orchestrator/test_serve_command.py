"""`quarterdeck serve --dialect orchestrator` as it is typed: a code job to its pull request, and a conversation."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from quarterdeck.demo.git import git
from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.ports import free_ports
from tests.acceptance.stacks import PROMPT, bare_origin
from tests.contract.orchestrator.conftest import SECRET, answered
from tests.integration.gateway.conftest import client_of

TITLE = "Write {prompt} as it is written in the US, and everywhere, however long it takes to say what that is"
START_SECONDS = 90
WORK_SECONDS = 60
STOP_SECONDS = 30
SERVE = ("-m", "quarterdeck", "serve", "--dialect", "orchestrator")


async def start(*words: str, **variables: str) -> Process:
    """With the offline model and servers of its own."""
    environment = base_environment() | variables
    return await asyncio.create_subprocess_exec(
        sys.executable, *SERVE, *words, env=environment, stdout=PIPE, stderr=PIPE
    )


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The API of a stack that keeps its repositories in a folder that it was told, once it has said that it is up."""
    (port,) = free_ports(1)
    told = {"AGENT_API_SECRET": SECRET, "REPOS_DIR": str(tmp_path / "repos"), "PORT": str(port)}
    process = await start("--data-dir", str(tmp_path / "data"), **told, SUPABASE_URL="https://x.example")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            lines = [(await process.stdout.readline()).decode().rstrip("\n") for _ in range(3)]
        assert lines[1:] == [f"Starting server on port {port}...", f"API endpoints: http://localhost:{port}/jobs"]
        async with client_of(port, SECRET) as client:
            yield client
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), STOP_SECONDS)
    assert process.returncode == 0, errors.decode()
    assert "SUPABASE_URL" in errors.decode()


async def until(api: httpx.AsyncClient, job_id: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job, with its messages, once ``is_so``."""
    job: dict[str, Any] = {}
    async with asyncio.timeout(WORK_SECONDS):
        while not job or not is_so(job):
            await asyncio.sleep(0.1)
            job = await answered(api.get(f"/jobs/{job_id}", params={"includeMessages": "true"}), 200)
    return job


async def test_a_code_job_and_a_conversation(served: httpx.AsyncClient, tmp_path: Path) -> None:
    origin = bare_origin(tmp_path, "one")
    client = await answered(served.post("/clients", json={"name": "Acme"}), 201)
    body = {"githubOrg": "acme", "githubRepo": "one", "cloneUrl": str(origin)}
    repository = await answered(served.post(f"/clients/{client['id']}/repository", json=body), 201)
    cloned = await answered(served.post(f"/repos/{repository['id']}/clone"), 200)
    assert cloned["success"] is True
    assert Path(cloned["path"]).parent == tmp_path / "repos" / "mirrors"
    assert (Path(cloned["path"]) / "HEAD").is_file()

    wanted = {"clientId": client["id"], "prompt": PROMPT, "branchName": "feature/us", "title": TITLE}
    code = await answered(served.post("/jobs", json=wanted), 201)
    job = await until(served, code["id"], has_ended)
    assert (job["status"], job["error"]) == ("completed", None), job
    page = await served.get(job["pr_url"], auth=("", SECRET))
    assert page.status_code == 200
    assert b"the color" in git("show", "feature/us:src/part_0.py", folder=origin)
    assert git("log", "-1", "--format=%s", "feature/us", folder=origin).decode().strip() == TITLE
    lines = [json.loads(each["content"]) for each in job["messages"] if each["type"] == "stdout"]
    assert (lines[0]["subtype"], lines[-1]["subtype"]) == ("init", "success")
    assert {line["type"] for line in lines} == {"system", "assistant", "user", "result"}

    await a_branch_of_somebody_elses(served, wanted, origin)

    task = await answered(served.post("/jobs", json=wanted | {"jobType": "task", "prompt": "Say hello"}), 201)
    job = await until(served, task["id"], lambda job: waits(job, 1))
    sent = await answered(served.post(f"/jobs/{task['id']}/message", json={"message": "And goodbye"}), 200)
    assert sent["messageSent"] is True
    await until(served, task["id"], lambda job: waits(job, 2))
    await answered(served.post(f"/jobs/{task['id']}/complete"), 200)
    job = await until(served, task["id"], lambda job: job["status"] == "completed")
    assert [each["content"] for each in job["messages"] if each["type"] == "user_input"] == ["And goodbye"]
    health = await answered(served.get("/health"), 200)
    assert (health["claude"]["authenticated"], health["git"]["authenticated"]) == (True, False)


async def a_branch_of_somebody_elses(api: httpx.AsyncClient, wanted: dict[str, Any], origin: Path) -> None:
    """Nothing of it is lost: the job fails, and says why; a retry goes beside it."""
    git("branch", "feature/theirs", "feature/us", folder=origin)
    theirs = git("rev-parse", "feature/theirs", folder=origin).decode().strip()
    created = await answered(api.post("/jobs", json=wanted | {"branchName": "feature/theirs"}), 201)
    job = await until(api, created["id"], has_ended)
    assert (job["status"], job["pr_url"]) == ("failed", None)
    assert f"feature/theirs: it is at {theirs}, which is not ours; nothing was overwritten" in job["error"]
    assert [each["type"] for each in job["messages"] if each["content"] == job["error"]] == ["stderr"]
    retried = await answered(api.post(f"/jobs/{job['id']}/retry"), 201)
    job = await until(api, retried["id"], has_ended)
    assert (job["status"], job["error"], job["branch_name"]) == ("completed", None, retried["branchName"])
    assert git("rev-parse", "feature/theirs", folder=origin).decode().strip() == theirs
    assert b"the color" in git("show", f"{retried['branchName']}:src/part_0.py", folder=origin)


def has_ended(job: dict[str, Any]) -> bool:
    return job["status"] not in ("queued", "running")


def waits(job: dict[str, Any], times: int) -> bool:
    return [each["content"] for each in job["messages"]].count("Claude waits for a message") == times


async def test_it_does_not_start_without_a_secret(tmp_path: Path) -> None:
    process = await start("--data-dir", str(tmp_path))
    out, err = await asyncio.wait_for(process.communicate(), START_SECONDS)
    assert (process.returncode, out) == (1, b"")
    assert "AGENT_API_SECRET" in err.decode()
