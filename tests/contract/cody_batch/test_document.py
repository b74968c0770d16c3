"""Every endpoint and example of the document: the curl line as it is printed, and the answer field by field."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.jobs.models import Usage
from tests.contract.cody_batch import document
from tests.contract.cody_batch.conftest import Cody, Work
from tests.contract.cody_batch.document import ADDRESS, ENCODED, JOB_ID, REPOSITORY, THREAD_ID

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
THREAD = re.compile(r"thread-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PULL_REQUEST = "https://github.com/liamzdenek/repo1/pull/1"


@dataclass
class Answer:
    status: int
    content_type: str
    body: str

    def json(self) -> dict[str, Any]:
        assert self.content_type.startswith("application/json")
        found: dict[str, Any] = json.loads(self.body)
        return found


async def curl(cody: Cody, home: Path, name: str, job_id: str = JOB_ID) -> Answer:
    """Run the printed line ``name``."""
    line = document.script(name).replace(ADDRESS, cody.api.address).replace(JOB_ID, job_id)
    printed, _ = await cody.api.shell(line, home)
    head, _, body = printed.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
    assert headers["x-request-id"]
    return Answer(int(first.split()[1]), headers["content-type"], body)


def settled(value: Any, job_id: str = JOB_ID) -> Any:
    """``value`` with whatever differs from one job to the next made alike: ids and times."""
    if isinstance(value, dict):
        return {name: settled(each, job_id) for name, each in value.items()}
    if isinstance(value, list):
        return [settled(each, job_id) for each in value]
    if not isinstance(value, str):
        return value
    if TIME.fullmatch(value):
        return "<time>"
    return THREAD_ID if THREAD.fullmatch(value) else JOB_ID if value == job_id else value


def assert_as_printed(found: Any, name: str, job_id: str) -> None:
    """Field by field, in the order of the fields."""
    assert json.dumps(settled(found, job_id), indent=1) == json.dumps(settled(document.answer(name)), indent=1)


def patch_of(changes: list[dict[str, str]]) -> bytes:
    files = [f"diff --git a/{each['file']} b/{each['file']}\nindex 1..2 100644\n{each['diff']}\n" for each in changes]
    return "".join(files).encode()


def transcript_of(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """A transcript that is shown as ``messages``: those of one role that follow one another are one message."""
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for message in messages:
        role = "user" if message["role"] == "human" else "assistant"
        content = message["content"]
        if message["type"] == "tool_call":
            block = {"type": "tool_use", "id": "toolu_1", "name": content["tool"], "input": content["input"]}
        elif message["type"] == "tool_result":
            text = "\n".join(content["result"]["files"])
            block = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": text}]}
        else:
            block = {"type": "text", "text": content}
        if found and found[-1][0] == role:
            found[-1][1].append(block)
        else:
            found.append((role, [block]))
    return list(found)


def work_of(thread: dict[str, Any], *log: str) -> Work:
    usage = thread["tokenUsage"]
    return Work(
        messages=transcript_of(thread["messages"]),
        log=[("info", line) for line in log],
        usage=Usage(usage["input"], usage["output"], usage["cacheRead"], usage["cacheCreation"]),
    )


async def test_health(cody: Cody, tmp_path: Path) -> None:
    answer = await curl(cody, tmp_path, "health")
    assert answer.status == 200
    found = answer.json()
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", found["version"])
    assert_as_printed(found | {"version": "1.0.0"}, "health", JOB_ID)


async def test_repositories(cody: Cody, tmp_path: Path) -> None:
    answer = await curl(cody, tmp_path, "repositories")
    assert answer.status == 200
    assert_as_printed(answer.json(), "repositories", JOB_ID)


async def test_create(cody: Cody, tmp_path: Path) -> None:
    answer = await curl(cody, tmp_path, "create")
    assert answer.status == 201
    found = answer.json()
    assert re.fullmatch(r"job-[0-9a-f-]{36}", found["jobId"])
    assert_as_printed(found, "create", found["jobId"])


async def test_list(cody: Cody, tmp_path: Path) -> None:
    (older, newer) = (
        await cody.create(name="Fix security vulnerabilities", type="vulnerability-fix", createPullRequests=False),
        await cody.create(repositories=["liamzdenek/repo1", "liamzdenek/repo2"]),
    )
    first, second = await cody.runs.claim(newer)
    await cody.runs.domain.finish(first)
    await cody.runs.work(second, Work())
    cancelled = await cody.api.alone.post(f"/jobs/{older}/cancel")
    assert cancelled.status_code == 200
    done = await cody.create(name="Fix security vulnerabilities", type="vulnerability-fix")
    (run,) = await cody.runs.claim(done)
    await cody.runs.domain.finish(run)

    answer = await curl(cody, tmp_path, "list")
    assert answer.status == 200
    found = answer.json()
    assert list(found) == ["jobs", "pagination"]
    by_id = {job["jobId"]: job for job in found["jobs"]}
    assert list(by_id)[:3] == [done, newer, older]
    printed = document.answer("list")
    assert_order = [settled(by_id[newer], newer), settled(by_id[done], done) | {"jobId": "job-124"}]
    assert json.dumps(assert_order) == json.dumps(settled(printed["jobs"]))
    assert (by_id[older]["status"], by_id[older]["repositoryCount"]) == ("cancelled", 1)
    pagination = found["pagination"]
    assert list(pagination) == list(printed["pagination"])
    assert (pagination["page"], pagination["perPage"]) == (1, 10)
    assert pagination["totalPages"] == -(-pagination["total"] // 10)


async def test_get(cody: Cody, tmp_path: Path) -> None:
    job_id = await cody.create(repositories=["liamzdenek/repo1", "liamzdenek/repo2"])
    first, _ = await cody.runs.claim(job_id)
    await cody.runs.publish(first, document.DIFF, PULL_REQUEST)
    answer = await curl(cody, tmp_path, "get", job_id)
    assert answer.status == 200
    assert_as_printed(answer.json(), "get", job_id)


async def test_cancel(cody: Cody, tmp_path: Path) -> None:
    job_id = await cody.create()
    answer = await curl(cody, tmp_path, "cancel", job_id)
    assert answer.status == 200
    assert_as_printed(answer.json(), "cancel", job_id)


async def test_result(cody: Cody, tmp_path: Path) -> None:
    printed = document.answer("result")
    job_id = await cody.create()
    (run,) = await cody.runs.claim(job_id)
    told = [line["message"] for line in printed["logs"] if line["message"].startswith("Found")]
    await cody.runs.work(run, work_of(printed["claudeConversation"], *told))
    await cody.runs.publish(run, patch_of(printed["changes"]), PULL_REQUEST)
    answer = await curl(cody, tmp_path, "result", job_id)
    assert answer.status == 200
    assert_as_printed(answer.json(), "result", job_id)


async def test_diff(cody: Cody, tmp_path: Path) -> None:
    job_id = await cody.create()
    (run,) = await cody.runs.claim(job_id)
    await cody.runs.publish(run, document.DIFF, PULL_REQUEST)
    answer = await curl(cody, tmp_path, "diff", job_id)
    assert (answer.status, answer.content_type) == (200, "text/plain; charset=utf-8")
    assert answer.body == document.DIFF.decode()


async def test_thread_and_its_simplified_view(cody: Cody, tmp_path: Path) -> None:
    printed = document.answer("thread")
    job_id = await cody.create()
    (run,) = await cody.runs.claim(job_id)
    await cody.runs.work(run, work_of(printed))
    answer = await curl(cody, tmp_path, "thread", job_id)
    assert answer.status == 200
    assert_as_printed(answer.json(), "thread", job_id)

    simplified = (await curl(cody, tmp_path, "thread_view", job_id)).json()
    words = [message for message in printed["messages"] if message["type"] in ("prompt", "response")]
    assert settled(simplified["messages"]) == settled(words)
    assert simplified["tokenUsage"] == printed["tokenUsage"]


@pytest.mark.parametrize(
    ("name", "status"), [("get", 404), ("cancel", 404), ("result", 404), ("diff", 404), ("thread", 404)]
)
async def test_an_unknown_job_is_not_found(cody: Cody, tmp_path: Path, name: str, status: int) -> None:
    answer = await curl(cody, tmp_path, name)
    assert answer.status == status
    assert answer.json() == {"error": {"message": f"Job not found: {JOB_ID}"}}


async def test_an_encoded_slash_a_plain_one_and_either_case(cody: Cody) -> None:
    job_id = await cody.create()
    (run,) = await cody.runs.claim(job_id)
    await cody.runs.publish(run, document.DIFF, PULL_REQUEST)
    for client in (cody.api.alone, cody.api.mounted):
        for name in (ENCODED, ENCODED.replace("%2F", "%2f"), REPOSITORY, "LiamZdenek%2FRepo1"):
            found = await client.get(f"/jobs/{job_id}/repositories/{name}")
            assert found.json()["repositoryName"] == REPOSITORY
            assert (await client.get(f"/jobs/{job_id}/repositories/{name}/diff")).content == document.DIFF
