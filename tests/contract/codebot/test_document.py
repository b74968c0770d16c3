"""Every endpoint and example of the document: the curl line as it is printed, and the answer field by field."""

import json
import re
import shutil
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from services.contracts.words import ExitReason
from tests.contract.codebot import document
from tests.contract.codebot.conftest import Codebot
from tests.contract.serving import Fleet
from tests.integration.jobs.changes import publish

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


async def curl(codebot: Codebot, line: str) -> Answer:
    printed = await codebot.shell(line)
    head, _, body = printed.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
    assert headers["content-type"].startswith("application/json")
    return Answer(int(first.split()[1]), headers, json.loads(body))


def assert_times(task: dict[str, Any], *names: str) -> None:
    for name in ("submitted_at", "started_at", "completed_at"):
        if name in names:
            assert TIME.fullmatch(task[name]), name
        else:
            assert task[name] is None, name


async def test_submit(codebot: Codebot) -> None:
    answer = await curl(codebot, document.SUBMIT)
    assert answer.status == 202
    UUID(answer.body["task_id"])
    assert list(answer.body) == ["task_id", "status", "message"]
    assert answer.body["status"] == "pending"
    assert answer.body["message"] == "Task queued successfully"
    assert answer.headers["x-request-id"]


async def test_status_of_a_pending_and_a_running_task(codebot: Codebot, fleet: Fleet) -> None:
    task_id = (await curl(codebot, document.SUBMIT)).body["task_id"]
    line = document.STATUS.replace(document.STATUS_ID, task_id)
    pending = await curl(codebot, line)
    assert (pending.status, pending.body["task_id"], pending.body["status"]) == (200, task_id, "pending")
    assert set(pending.body) == {"task_id", "status", "submitted_at", "started_at", "completed_at"}
    assert_times(pending.body, "submitted_at")
    await fleet.claim(task_id)
    running = await curl(codebot, line)
    assert running.body["status"] == "running"
    assert_times(running.body, "submitted_at", "started_at")


async def test_status_of_a_completed_task(codebot: Codebot, fleet: Fleet) -> None:
    task_id = (await curl(codebot, document.SUBMIT)).body["task_id"]
    await publish(fleet.domain, await fleet.claim(task_id), 123)
    answer = await curl(codebot, document.STATUS.replace(document.STATUS_ID, task_id))
    assert answer.status == 200
    assert list(answer.body) == ["task_id", "status", "submitted_at", "started_at", "completed_at", "result"]
    assert answer.body["status"] == "completed"
    assert_times(answer.body, "submitted_at", "started_at", "completed_at")
    result = answer.body["result"]
    assert list(result)[:3] == ["pr_url", "branch_name", "work_dir"]
    assert result["pr_url"] == "https://forge.example/a/one/pull/123"
    assert re.fullmatch(r"u/codebot/FEAT-123/[0-9a-f]{7}/add-dark-mode", result["branch_name"])
    assert result["outcome"] == "delivered"


async def test_status_of_a_failed_task(codebot: Codebot, fleet: Fleet) -> None:
    task_id = (await curl(codebot, document.SUBMIT)).body["task_id"]
    run = await fleet.claim(task_id)
    await fleet.domain.running.fail(run.hold, ExitReason.CLONE_FAILED, error="authentication failed")
    answer = await curl(codebot, document.STATUS.replace(document.STATUS_ID, task_id))
    assert answer.status == 200
    assert list(answer.body) == ["task_id", "status", "submitted_at", "started_at", "completed_at", "error"]
    assert answer.body["status"] == "failed"
    assert_times(answer.body, "submitted_at", "started_at", "completed_at")
    assert answer.body["error"] == "Failed to clone repository: authentication failed"


async def test_list(codebot: Codebot, fleet: Fleet) -> None:
    task_id = (await curl(codebot, document.SUBMIT)).body["task_id"]
    assert (await curl(codebot, document.LIST)).body == {"tasks": [], "count": 0}
    await publish(fleet.domain, await fleet.claim(task_id), 123)
    answer = await curl(codebot, document.LIST)
    assert (answer.status, list(answer.body), answer.body["count"]) == (200, ["tasks", "count"], 1)
    (task,) = answer.body["tasks"]
    names = "task_id status submitted_at started_at completed_at repository_url description"
    assert list(task) == names.split()
    assert (task["task_id"], task["status"]) == (task_id, "completed")
    assert task["repository_url"] == document.SUBMISSION["repository_url"]
    assert task["description"] == document.SUBMISSION["description"]
    assert_times(task, "submitted_at", "started_at", "completed_at")


async def test_health_is_open_and_counts_what_waits(codebot: Codebot) -> None:
    line = document.HEALTH
    assert (await curl(codebot, line)).body == {"status": "healthy", "review_queue_size": 0, "task_queue_size": 0}
    for _ in range(2):
        await curl(codebot, document.SUBMIT)
    answer = await curl(codebot, line)
    assert answer.status == 200
    assert answer.body == {"status": "healthy", "review_queue_size": 0, "task_queue_size": 2}


@pytest.mark.parametrize("line", [document.SUBMIT, document.STATUS, document.LIST])
@pytest.mark.parametrize("key", ["Bearer wrong", "Bearer", "Basic eW91ci1hcGkta2V5", ""])
async def test_a_wrong_key_is_unauthorized(shared_codebot: Codebot, line: str, key: str) -> None:
    answer = await curl(shared_codebot, line.replace(f"Bearer {document.KEY}", key))
    assert answer.status == 401
    assert list(answer.body) == ["error", "message"]
    assert answer.body["error"] == "Unauthorized"
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_an_unknown_task_is_not_found(shared_codebot: Codebot) -> None:
    answer = await curl(shared_codebot, document.STATUS)
    assert answer.status == 404
    assert answer.body == {"error": "Not Found", "message": f"Task {document.STATUS_ID} not found"}


@pytest.mark.parametrize("field", ["repository_url", "description"])
async def test_a_missing_field_is_a_bad_request(shared_codebot: Codebot, field: str) -> None:
    answer = await curl(shared_codebot, document.SUBMIT.replace(f'"{field}"', '"something_else"'))
    assert answer.status == 400
    assert answer.body == {"error": "Bad Request", "message": f"{field}: is required"}


@pytest.mark.parametrize(("given", "names"), [("limit=0", "limit"), ("limit=1001", "limit"), ("status=done", "status")])
async def test_bad_parameters_of_the_list_are_a_bad_request(shared_codebot: Codebot, given: str, names: str) -> None:
    answer = await curl(shared_codebot, document.LIST.replace("status=completed&limit=10", given))
    assert (answer.status, answer.body["error"]) == (400, "Bad Request")
    assert names in answer.body["message"]
