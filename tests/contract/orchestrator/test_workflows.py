"""The two workflows of the document, run by a shell as they are printed; only address, secret and job id are put in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.contracts.words import EventKind, Outcome
from services.jobs.models import Checkpoint, ClaimedRun, ModelUse, StoredMessage, Usage
from services.jobs.unit import Draft
from tests.contract.orchestrator import document
from tests.contract.orchestrator.conftest import SECRET, Kept, Orchestrator
from tests.contract.serving import Fleet
from tests.integration.jobs.changes import publish

QUESTION = "Which part of the product is it for?"
ANSWER = "Then I suggest a page with three charts."


@pytest.fixture(scope="module")
async def printed_client(orchestrator: Orchestrator) -> Kept:
    """Whose id the document prints."""
    return await orchestrator.client(client_id=document.CLIENT_ID)


async def step(orchestrator: Orchestrator, home: Path, script: str, job_id: str = "") -> tuple[int, dict[str, Any]]:
    """What the command of a step answers."""
    script = script.replace(document.ADDRESS, orchestrator.served.address)
    script = script.replace("JOB_ID", job_id).replace("abc123", job_id)
    printed, _ = await orchestrator.served.shell(f"SECRET={SECRET}\n{script}", home)
    head, _, body = printed.replace("\r\n", "\n").partition("\n\n")
    return int(head.split()[1]), json.loads(body)


async def test_the_code_job_workflow(
    orchestrator: Orchestrator, printed_client: Kept, fleet: Fleet, tmp_path: Path
) -> None:
    status, created = await step(orchestrator, tmp_path, document.CODE_JOB)
    assert (status, list(created)) == (201, document.CREATED_JOB)
    assert (created["status"], created["branchName"]) == ("queued", "feature/logout-button")

    run = await fleet.claim(created["id"])
    status, job = await step(orchestrator, tmp_path, document.POLL_CODE_JOB, created["id"])
    assert (status, job["status"], job["client"]["id"]) == (200, "running", document.CLIENT_ID)

    await publish(fleet.domain, run, 7)
    _, job = await step(orchestrator, tmp_path, document.POLL_CODE_JOB, created["id"])
    assert (job["status"], job["pr_url"]) == ("completed", "https://forge.example/a/one/pull/7")


async def say(fleet: Fleet, run: ClaimedRun, first: int, text: str, *, heard: int = 0) -> None:
    """Let the model answer, and wait for its user. ``first``: the number of the message that it answers."""
    told = [f'{{"role":"user","content":[{{"type":"text","text":"message {first}"}}]}}']
    told.append(json.dumps({"role": "assistant", "content": [{"type": "text", "text": text}]}))
    use = ModelUse(Usage(input_tokens=10, output_tokens=5), "claude-x", cost_microusd=100)
    tokens = {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 0, "cacheCreationInputTokens": 0}
    used = Draft(EventKind.USAGE, {"turn": 1, "model": "claude-x", "tokens": tokens, "runCostUsd": 0.0001 * first})
    user, assistant = (body.encode() for body in told)
    messages = [StoredMessage(first, "user", user), StoredMessage(first + 1, "assistant", assistant)]
    await fleet.domain.running.checkpoint(run.hold, Checkpoint(messages, usage=use, events=[used], read_through=heard))
    assert await fleet.domain.messaging.park(run.hold, summary=text)


async def test_the_interactive_task_workflow(
    orchestrator: Orchestrator, printed_client: Kept, fleet: Fleet, tmp_path: Path
) -> None:
    status, created = await step(orchestrator, tmp_path, document.TASK_JOB)
    job_id = created["id"]
    assert (status, created["status"]) == (201, "queued")
    assert re.fullmatch(r"task-\d{13}", created["branchName"])

    run = await fleet.claim(job_id)
    await say(fleet, run, 1, QUESTION)
    status, job = await step(orchestrator, tmp_path, document.POLL_TASK_JOB, job_id)
    assert (status, job["status"], job["job_type"]) == (200, "running", "task")
    assert [message["type"] for message in job["messages"]] == ["system", "system", *["stdout"] * 3, "system"]
    init, assistant, result = (json.loads(message["content"]) for message in job["messages"][2:5])
    assert (init["type"], init["subtype"], init["model"]) == ("system", "init", "claude-x")
    assert assistant["message"]["content"] == [{"type": "text", "text": QUESTION}]
    assert (result["type"], result["subtype"], result["result"]) == ("result", "success", QUESTION)
    assert init["session_id"] == assistant["session_id"] == result["session_id"] == str(run.hold.run_id)

    status, sent = await step(orchestrator, tmp_path, document.SEND_MESSAGE, job_id)
    assert (status, sent) == (200, {"id": job_id, "messageSent": True})
    again = await fleet.domain.resume(run.hold.run_id)
    (heard,) = await fleet.domain.messaging.unread(again.hold)
    assert heard.text == "I want an analytics dashboard feature"
    await say(fleet, again, 3, ANSWER, heard=heard.number)
    _, job = await step(orchestrator, tmp_path, document.POLL_TASK_JOB, job_id)
    told = [(each["type"], each["content"]) for each in job["messages"]]
    assert ("user_input", "I want an analytics dashboard feature") in told
    assert [each["created_at"] for each in job["messages"]] == sorted(each["created_at"] for each in job["messages"])

    status, completing = await step(orchestrator, tmp_path, document.COMPLETE, job_id)
    assert (status, completing) == (200, {"id": job_id, "status": "completing"})
    _, job = await step(orchestrator, tmp_path, document.POLL_TASK_JOB, job_id)
    assert (job["status"], job["error"], job["summary"]) == ("completed", None, ANSWER)
    results = [json.loads(each["content"]) for each in job["messages"] if '"type":"result"' in each["content"]]
    assert [(each["result"], each["num_turns"]) for each in results] == [(QUESTION, 1), (ANSWER, 2)]
    assert results[-1]["usage"]["input_tokens"] == 20


async def test_a_task_that_is_at_work_completes_when_claude_has_finished(
    orchestrator: Orchestrator, printed_client: Kept, fleet: Fleet, tmp_path: Path
) -> None:
    _, created = await step(orchestrator, tmp_path, document.TASK_JOB)
    run = await fleet.claim(created["id"])
    status, _ = await step(orchestrator, tmp_path, document.COMPLETE, created["id"])
    assert status == 200
    assert (await orchestrator.shown(created["id"]))["status"] == "running"
    (heard,) = await fleet.domain.messaging.unread(run.hold)
    assert heard.completes
    await fleet.domain.running.checkpoint(run.hold, Checkpoint(read_through=heard.number))
    await fleet.domain.running.complete(run.hold, Outcome.ANSWERED, summary="done")
    assert (await orchestrator.shown(created["id"]))["status"] == "completed"
