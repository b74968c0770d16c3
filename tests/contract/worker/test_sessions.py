"""Interactive sessions as their clients see them: every event in order, their end, and what is asked of jobs."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from services.contracts.words import EventKind, Publish
from services.jobs.sealed import job_owner
from services.runtime.sealing import Sealer
from tests.contract.serving import leave
from tests.contract.worker.conftest import BASE_URL, SECRET_KEY, VCS_ROOT, Worker, running_worker
from tests.contract.worker.stage import ODD_TEXT, START, TURN, Stage, attached, data_of, names, started
from tests.integration.jobs.changes import claimed, publish, show, store
from tests.integration.jobs.domain import COMMIT, shown
from tests.integration.waiting import until_async

CURL = """curl -N -X POST https://your-worker.workers.dev/interactive/start \\
  -H "Content-Type: application/json" \\
  -d '{
    "prompt": "Explain how authentication works",
    "repository": {
      "name": "owner/repo"
    }
  }'
"""
PRINTED_ADDRESS = "https://your-worker.workers.dev"
PROMPT = "Explain how authentication works"


@pytest.fixture
def api(shared_worker: Worker) -> httpx.AsyncClient:
    return shared_worker.api.alone


@pytest.fixture
def stage(shared_worker: Worker) -> Stage:
    return shared_worker.stage


@pytest.fixture
def session_id() -> str:
    return f"session {uuid4()}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_printed_curl_line(shared_worker: Worker, tmp_path: Path) -> None:
    prompt = f"{PROMPT} {uuid4()}"
    script = CURL.replace(PRINTED_ADDRESS, shared_worker.api.address).replace(PROMPT, prompt)
    running = asyncio.create_task(shared_worker.api.shell(script, tmp_path))
    session_id = await shared_worker.stage.newest(prompt)
    await shared_worker.stage.play(session_id)
    printed, _ = await running
    head, _, body = printed.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert f"X-Session-Id: {session_id}" in head
    assert "Content-Type: text/event-stream" in head
    frames = [frame.split("\n") for frame in body.split("\n\n") if "event: " in frame]
    assert [frame[0][:4] for frame in frames] == ["id: "] * len(frames)
    told = [frame[1].removeprefix("event: ") for frame in frames]
    assert [name for name in told if name != "status"] == ["connected", *TURN, *TURN, "complete"]
    last = json.loads(frames[-1][2].removeprefix("data: "))
    assert (last["sessionId"], last["turns"]) == (session_id, 2)


async def test_each_event_has_its_fields(api: httpx.AsyncClient, stage: Stage, session_id: str) -> None:
    async with started(api, sessionId=session_id) as frames:
        assert frames.session_id == session_id
        connected = await frames.until("connected")
        assert session_id in connected["message"]
        run = await stage.begin(session_id)
        assert (await frames.until("status"))["message"] == "An agent has begun"
        await stage.turn(run, 1, "one ", ODD_TEXT)
        begun = await frames.until("claude_start")
        assert (begun["turn"], begun["prompt"]) == (1, PROMPT)
        assert [(await frames.until("claude_delta"))["content"] for _ in range(2)] == ["one ", ODD_TEXT]
        assert (await frames.until("claude_end"))["turn"] == 1
        changed = await frames.until("file_change")
        assert changed["message"] == "added 1.py"
        assert changed["workspaceDir"] == f"{VCS_ROOT}/worktrees/{run.hold.run_id}/1"
        await stage.complete(run, "it is a wall")
        complete = await frames.until("complete")
        assert (complete["sessionId"], complete["turns"], complete["summary"]) == (session_id, 1, "it is a wall")
        all_of_it = await frames.rest()
    assert names(all_of_it) == ["connected", *TURN, "complete"]
    assert all(len(data_of(each)["timestamp"]) == len("2025-01-06T00:00:00.000Z") for each in all_of_it)
    assert all(each.data.isascii() for each in all_of_it)


async def test_a_session_whose_agent_never_took_it_up_goes_on_with_another(
    api: httpx.AsyncClient, stage: Stage, session_id: str
) -> None:
    async with started(api, sessionId=session_id) as frames:
        order = await stage.fleet.give(await stage.job_of(session_id))
        await leave(stage.fleet.domain, order)
        await stage.complete(await stage.begin(session_id), "it is a wall")
        assert (await frames.until("complete"))["summary"] == "it is a wall"
    told = [data_of(each)["message"] for each in frames.seen if each.event == "status"]
    assert told == ["An agent has begun", "Goes on in another attempt: unclaimed", "An agent has begun"]


async def test_a_delta_comes_before_the_turn_has_ended(api: httpx.AsyncClient, stage: Stage, session_id: str) -> None:
    async with started(api, sessionId=session_id) as frames:
        run = await stage.begin(session_id)
        await stage.tell(run, (EventKind.TURN_STARTED, {"turn": 1, "model": "m"}))
        await frames.until("claude_start")
        await stage.delta(run, 1, "now")
        assert (await frames.until("claude_delta"))["content"] == "now"
        await stage.complete(run)


async def test_what_becomes_of_a_change_is_told(api: httpx.AsyncClient, stage: Stage, session_id: str) -> None:
    async with started(api, sessionId=session_id, options={"createPR": True}) as frames:
        run = await stage.begin(session_id)
        await publish(stage.fleet.domain, run, 7)
        await stage.publish()
        complete = await frames.until("complete")
    status = (await api.get("/interactive/status", params={"sessionId": session_id})).json()
    assert status["repository"] == {"name": "owner/repo", "branch": "main"}
    url = "https://forge.example/a/one/pull/7"
    assert (complete["outcome"], complete["pullRequestUrl"]) == ("delivered", url)
    told = [data_of(each)["message"] for each in frames.seen if each.event == "status"]
    assert [words for words in told if words.startswith(("Change stored", "Publish"))] == [
        "Change stored: 1 file(s), 3 line(s) added, 1 removed",
        "Publishing the change",
        f"Published: {url}",
    ]


@pytest.mark.parametrize("way", ["alone", "mounted"])
async def test_a_page_of_the_local_forge_is_a_link_that_opens(
    shared_worker: Worker, stage: Stage, session_id: str, way: str
) -> None:
    api = getattr(shared_worker.api, way)
    async with started(api, sessionId=session_id, options={"createPR": True}) as frames:
        run = await stage.begin(session_id)
        changeset_id = await store(stage.fleet.domain, run)
        publication = await claimed(stage.fleet.domain, changeset_id)
        await show(stage.fleet.domain, publication, shown(f"/changesets/{changeset_id}"))
        await stage.publish()
        url = (await frames.until("complete"))["pullRequestUrl"]
    assert url == f"{str(api.base_url).rstrip('/')}/changesets/{changeset_id}"
    assert f"Published: {url}" in [data_of(each)["message"] for each in frames.seen if each.event == "status"]
    page = await api.get(url)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert publication.branch in page.text


async def test_a_failed_session_ends_with_an_error(api: httpx.AsyncClient, stage: Stage, session_id: str) -> None:
    async with started(api, sessionId=session_id) as frames:
        await stage.fail(await stage.begin(session_id), "the model refused: ünd\r\nwie")
        seen = await frames.rest()
    assert names(seen) == ["connected", "error"]
    assert data_of(seen[-1])["message"] == "the model refused: ünd\r\nwie"
    status = (await api.get("/interactive/status", params={"sessionId": session_id})).json()
    assert (status["status"], status["errorMessage"]) == ("error", "the model refused: ünd\r\nwie")


async def test_a_session_without_a_repository_writes_into_an_empty_folder(
    api: httpx.AsyncClient, stage: Stage, session_id: str
) -> None:
    async with started(api, sessionId=session_id, repository=None) as frames:
        run = await stage.begin(session_id)
        assert (run.kind, run.repository, run.options.publish) == ("code", None, "none")
        await stage.turn(run, 1, "one ", "two")
        assert (await frames.until("file_change"))["message"] == "added 1.py"
        await stage.fleet.domain.running.deliver(run.hold, COMMIT, publish=Publish.NONE, summary="a program")
        await stage.publish()
        complete = await frames.until("complete")
        assert (complete["outcome"], complete["summary"], "pullRequestUrl" in complete) == (
            "stored",
            "a program",
            False,
        )
        assert await frames.rest() == frames.seen
    status = (await api.get("/interactive/status", params={"sessionId": session_id})).json()
    assert (status["status"], "repository" in status) == ("completed", False)


async def test_what_is_asked_of_the_job(shared_worker: Worker, session_id: str) -> None:
    body: dict[str, Any] = {
        "sessionId": session_id,
        "repository": {"url": "https://github.com/a/b.git", "name": "c/d", "branch": "dev"},
        "anthropicBaseUrl": BASE_URL,
        "options": {"maxTurns": 3, "permissionMode": "plan", "createPR": True, "unknown": 1},
    }
    async with started(shared_worker.api.alone, **body):
        run = await shared_worker.stage.begin(session_id)
    assert (run.repository, run.base_ref, run.kind) == ("https://github.com/a/b.git", "dev", "code")
    assert (run.options.max_turns, run.options.permission_mode, run.options.base_url) == (3, "plan", BASE_URL)
    assert run.options.publish == "pull_request"


async def test_the_defaults_and_the_plain_repository(shared_worker: Worker, session_id: str) -> None:
    async with started(shared_worker.api.mounted, sessionId=session_id, repository="owner/repo", options={}):
        run = await shared_worker.stage.begin(session_id)
    assert run.repository == "https://github.com/owner/repo"
    assert (run.options.max_turns, run.options.permission_mode) == (10, "acceptEdits")
    assert run.options.publish == "none"


async def test_secrets_reach_the_job_and_nobody_else(
    shared_worker: Worker, session_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = shared_worker.stage
    key, token = f"sk-ant-{uuid4()}", f"ghp_{uuid4()}"
    async with started(shared_worker.api.alone, sessionId=session_id, anthropicApiKey=key, githubToken=token) as frames:
        run = await stage.play(session_id)
        assert all(key not in each.data and token not in each.data for each in await frames.rest())
    opened = [Sealer(SECRET_KEY).open(each, owners=[job_owner(run.hold.job_id)]).secrets for each in run.sealed if each]
    assert opened == [{"anthropicApiKey": key, "githubToken": token}]
    tables = await stage.fleet.domain.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert len(tables) > 10
    for table in tables:
        for row in await stage.fleet.domain.rows(f"SELECT t::text AS line FROM {table['tablename']} t"):
            assert key not in row["line"]
            assert token not in row["line"]
    printed = capsys.readouterr()
    assert all(secret not in printed.out + printed.err for secret in (key, token))


async def test_without_a_secret_key_nothing_secret_is_taken(
    shared_worker: Worker, database_url: str, nats_url: str
) -> None:
    async with running_worker(database_url, nats_url, secret_key=None) as running:
        answer = await running.api.alone.post(START, json={"prompt": "x", "anthropicApiKey": "sk-ant-1"})
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")
    assert answer.json()["message"].startswith("anthropicApiKey: ")
    assert "QUARTERDECK_SECRET_KEY" in answer.json()["message"]
    assert "sk-ant-1" not in answer.text


async def test_status_and_end(api: httpx.AsyncClient, stage: Stage, session_id: str) -> None:
    async def status() -> httpx.Response:
        return await api.get("/interactive/status", params={"sessionId": session_id})

    async with started(api, sessionId=session_id, repository={"name": "owner/repo", "branch": "main"}) as frames:
        queued = (await status()).json()
        assert list(queued) == [
            *("sessionId", "status", "currentTurn", "repository"),
            *("createdAt", "lastActivityAt"),
        ]
        assert (queued["status"], queued["currentTurn"]) == ("processing", 0)
        assert queued["repository"] == {"name": "owner/repo", "branch": "main"}
        run = await stage.begin(session_id)
        await stage.turn(run, 1, "a")
        await stage.tell(run, (EventKind.TURN_STARTED, {"turn": 2, "model": "m"}))
        running = (await status()).json()
        assert (running["status"], running["currentTurn"]) == ("processing", 2)
        assert running["createdAt"] == queued["createdAt"] <= queued["lastActivityAt"] <= running["lastActivityAt"]
        answer = await api.delete(f"/interactive/{session_id}")
        assert answer.status_code == 200
        assert answer.json() == {"success": True, "message": f"Session {session_id} ended"}
        assert await stage.state_of(session_id) == "cancelling"
        await stage.fleet.domain.running.cancelled(run.hold)
        await stage.publish()
        assert (await frames.rest())[-1].event == "error"
    for gone in (await status(), await api.delete(f"/interactive/{session_id}")):
        assert (gone.status_code, gone.json()["error"]) == (404, "NOT_FOUND")


async def test_an_id_is_free_again_once_its_session_was_ended(
    api: httpx.AsyncClient, stage: Stage, session_id: str
) -> None:
    async with started(api, sessionId=session_id) as first:
        await first.until("connected")
        for _ in range(2):
            assert (await api.delete(f"/interactive/{session_id}")).status_code == 200
            async with started(api, sessionId=session_id) as again:
                assert session_id in (await again.until("connected"))["message"]
                taken = await api.post(START, json={"prompt": "x", "sessionId": session_id})
                assert (taken.status_code, taken.json()["error"]) == (400, "VALIDATION_ERROR")
                assert (await api.get("/interactive/status", params={"sessionId": session_id})).status_code == 200
        rows = await stage.fleet.domain.rows("SELECT 1 FROM jobs WHERE metadata ->> 'session' = $1", session_id)
        assert len(rows) == 3


async def test_a_completed_session_has_its_time_and_need_not_be_ended(
    api: httpx.AsyncClient, stage: Stage, session_id: str
) -> None:
    async with started(api, sessionId=session_id) as frames:
        await stage.play(session_id)
        await frames.until("complete")
    status = (await api.get("/interactive/status", params={"sessionId": session_id})).json()
    assert (status["status"], status["currentTurn"]) == ("completed", 2)
    assert status["lastActivityAt"] >= status["completedAt"] > status["createdAt"] > 1_700_000_000_000
    assert "errorMessage" not in status
    assert (await api.delete(f"/interactive/{session_id}")).json()["success"] is True


async def test_starts_at_once_with_one_id_make_one_session(
    api: httpx.AsyncClient, stage: Stage, session_id: str
) -> None:
    statuses: list[int] = []
    done = asyncio.Event()

    async def start() -> None:
        body = {"prompt": f"{len(statuses)}", "sessionId": session_id}
        async with api.stream("POST", START, json=body) as answer:
            statuses.append(answer.status_code)
            await done.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(start())

        async def all_answered() -> bool:
            return len(statuses) == 6

        await until_async(all_answered)
        done.set()
    assert sorted(statuses) == [200, 400, 400, 400, 400, 400]
    await stage.job_of(session_id)


async def test_an_id_is_made_up(api: httpx.AsyncClient) -> None:
    async with started(api) as frames, attached(api, frames.session_id) as beside:
        assert frames.session_id in (await beside.until("connected"))["message"]


@pytest.mark.parametrize("odd_id", ["é 100 % 🚢 ?&#+\\" + "x" * 180, "ü" * 200, "start", "status", "a..b", '"'])
async def test_an_id_may_be_odd(shared_worker: Worker, odd_id: str) -> None:
    api = shared_worker.api.alone
    async with started(api, sessionId=odd_id) as frames:
        assert frames.session_id == odd_id
        run = await shared_worker.stage.begin(odd_id)
        await shared_worker.stage.turn(run, 1, "a")
        await frames.until("claude_delta")
    async with attached(api, odd_id, frames.seen[-1].id) as again:
        await again.until("claude_end")
    status = await api.get("/interactive/status", params={"sessionId": odd_id})
    assert (status.status_code, status.json()["sessionId"]) == (200, odd_id)
    assert (await api.delete(f"/interactive/{quote(odd_id, safe='')}")).json()["success"] is True
