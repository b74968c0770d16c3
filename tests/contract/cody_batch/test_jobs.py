"""Jobs through their states, in Cody's words: what is shown when, how they are cancelled, and who made them."""

from typing import Any

from services.contracts.rest import JobRequest
from services.contracts.words import ExitReason, JobState, Publish
from services.jobs.models import Usage
from services.jobs.submission import Submissions
from tests.contract.cody_batch.conftest import Cody, Work, native_id
from tests.contract.cody_batch.document import CREATE, DIFF, ENCODED, REPOSITORY
from tests.contract.serving import leave

PAIR = ["liamzdenek/repo1", "liamzdenek/repo2"]
NOT_THERE = ["liamzdenek/repo1", "somebody/else"]


async def job_of(cody: Cody, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = await cody.get(f"/jobs/{job_id}")
    return found


async def result_of(cody: Cody, job_id: str, suffix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = await cody.get(f"/jobs/{job_id}/repositories/{ENCODED}{suffix}")
    return found


async def listed(cody: Cody, job_id: str, **query: Any) -> dict[str, Any] | None:
    jobs = (await cody.get("/jobs", perPage=100, **query))["jobs"]
    return next((job for job in jobs if job["jobId"] == job_id), None)


async def test_a_job_waits_runs_and_ends_without_changes(cody: Cody) -> None:
    job_id = await cody.create()
    job = await job_of(cody, job_id)
    assert (job["status"], job["startedAt"], job["completedAt"]) == ("pending", None, None)
    result = await result_of(cody, job_id)
    assert (result["status"], result["changes"], result["claudeConversation"]) == ("pending", [], None)
    assert result["logs"] == []
    for suffix in ("/diff", "/claude-thread"):
        answer = await cody.api.alone.get(f"/jobs/{job_id}/repositories/{ENCODED}{suffix}")
        assert answer.status_code == 404

    (run,) = await cody.runs.claim(job_id)
    assert await listed(cody, job_id, status="in-progress") == await listed(cody, job_id, status="processing")
    assert await listed(cody, job_id, status="pending") is None
    job = await job_of(cody, job_id)
    assert (job["status"], job["repositories"][0]["status"]) == ("in-progress", "in-progress")
    assert job["repositories"][0]["wereChangesNecessary"] is None

    await cody.runs.domain.finish(run)
    job = await job_of(cody, job_id)
    assert (job["status"], job["repositories"][0]["status"]) == ("completed", "completed")
    assert job["repositories"][0]["wereChangesNecessary"] is False
    result = await result_of(cody, job_id)
    assert (result["pullRequestUrl"], result["completedAt"]) == (None, job["repositories"][0]["completedAt"])
    assert [line["message"] for line in result["logs"]] == ["Starting repository analysis", "No changes were necessary"]


async def test_what_was_started_is_never_pending_again(cody: Cody) -> None:
    job_id = await cody.create()
    (run,) = await cody.runs.claim(job_id)
    await cody.runs.domain.running.interrupted(run.hold)
    job = await job_of(cody, job_id)
    assert (job["status"], job["repositories"][0]["status"]) == ("in-progress", "in-progress")


async def test_what_its_agent_never_took_up_is_never_pending_again(cody: Cody) -> None:
    job_id = await cody.create()
    (order,) = await cody.runs.give(job_id)
    started = await job_of(cody, job_id)
    assert (started["status"], started["repositories"][0]["status"]) == ("in-progress", "in-progress")
    await leave(cody.runs.domain, order)
    job = await job_of(cody, job_id)
    assert (job["status"], job["repositories"][0]["status"]) == ("in-progress", "in-progress")
    assert job["startedAt"] == started["startedAt"]


async def test_without_pull_requests_nothing_is_published(cody: Cody) -> None:
    job_id = await cody.create(createPullRequests=False)
    native = await cody.api.native.get(f"/v1/jobs/{native_id(job_id)}")
    assert native.status_code == 404  # it is another client's
    (run,) = await cody.runs.claim(job_id)
    assert run.options.publish is Publish.NONE
    assert run.repository == "https://github.com/liamzdenek/repo1.git"
    await cody.runs.store(run, DIFF, publish=Publish.NONE)
    job = await job_of(cody, job_id)
    assert (job["status"], job["createPullRequests"]) == ("completed", False)
    repository = job["repositories"][0]
    assert (repository["pullRequestUrl"], repository["wereChangesNecessary"]) == (None, True)
    result = await result_of(cody, job_id)
    assert [change["file"] for change in result["changes"]] == ["src/api.js", "src/utils.js"]


async def test_a_failure_is_told_with_its_words(cody: Cody) -> None:
    job_id = await cody.create(repositories=PAIR)
    first, second = await cody.runs.claim(job_id)
    await cody.runs.domain.running.fail(first.hold, ExitReason.CLONE_FAILED, error="no such repository")
    assert (await listed(cody, job_id) or {})["completedCount"] == 1
    await cody.runs.domain.running.fail(second.hold, ExitReason.TIMED_OUT, error="not finished within 5 s")
    job = await job_of(cody, job_id)
    assert (job["status"], job["error"]) == ("failed", "no such repository")
    assert await listed(cody, job_id, status="failed") is not None
    result = await result_of(cody, job_id)
    assert (result["status"], result["error"], result["wereChangesNecessary"]) == ("failed", "no such repository", None)
    assert result["logs"][-1] | {"timestamp": ""} == {"timestamp": "", "level": "ERROR", "message": result["error"]}


async def test_a_cancel_is_told_at_once_and_for_ever(cody: Cody) -> None:
    job_id = await cody.create(repositories=PAIR)
    first, second = await cody.runs.claim(job_id)
    await cody.runs.domain.finish(second)
    answer = await cody.api.alone.post(f"/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    cancelled_at = answer.json()["cancelledAt"]
    await _assert_cancelled(cody, job_id, cancelled_at)
    await cody.runs.domain.running.cancelled(first.hold)
    await _assert_cancelled(cody, job_id, cancelled_at)
    again = await cody.api.alone.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["error"]["message"]) == (
        400,
        "Job cannot be cancelled: it is cancelled already",
    )


async def _assert_cancelled(cody: Cody, job_id: str, cancelled_at: str) -> None:
    """The first repository was under way, the second had ended."""
    job = await job_of(cody, job_id)
    assert (job["status"], job["cancelledAt"], job["completedAt"]) == ("cancelled", cancelled_at, cancelled_at)
    assert [each["status"] for each in job["repositories"]] == ["failed", "completed"]
    assert (await result_of(cody, job_id))["error"] == "cancelled"
    assert await listed(cody, job_id, status="cancelled") is not None


async def test_what_has_ended_or_is_being_pushed_is_not_cancelled(cody: Cody) -> None:
    ended, pushed = await cody.create(), await cody.create()
    (run,) = await cody.runs.claim(ended)
    await cody.runs.domain.finish(run)
    answer = await cody.api.alone.post(f"/jobs/{ended}/cancel")
    assert answer.status_code == 400
    assert "completed already" in answer.json()["error"]["message"]

    (run,) = await cody.runs.claim(pushed)
    await cody.runs.push(run, await cody.runs.store(run, DIFF))
    answer = await cody.api.alone.post(f"/jobs/{pushed}/cancel")
    assert answer.status_code == 400
    assert "being pushed" in answer.json()["error"]["message"]
    job = await job_of(cody, pushed)
    assert (job["status"], job["repositories"][0]["wereChangesNecessary"]) == ("in-progress", True)


async def test_a_page_of_the_local_forge_is_one_of_this_api(cody: Cody) -> None:
    job_id = await cody.create()
    (run,) = await cody.runs.claim(job_id)
    changeset_id = await cody.runs.store(run, DIFF)
    await cody.runs.domain.execute(
        "UPDATE changesets SET url = '/changesets/' || id::text, forge = 'local' WHERE id = $1", changeset_id
    )
    for client in (cody.api.alone, cody.api.mounted):
        job = (await client.get(f"/jobs/{job_id}")).json()
        url = job["repositories"][0]["pullRequestUrl"]
        assert url == f"{str(client.base_url).rstrip('/')}/changesets/{changeset_id}"
        page = await client.get(url)
        assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


async def test_a_refused_repository_creates_nothing(cody: Cody) -> None:
    before = (await cody.get("/jobs"))["pagination"]["total"]
    answer = await cody.api.alone.post("/jobs", json=CREATE | {"repositories": NOT_THERE})
    assert answer.status_code == 400
    (detail,) = answer.json()["error"]["details"]
    assert detail["field"] == "repositories[1]"
    assert "ALLOWED_REPOSITORIES" in detail["message"]
    assert (await cody.get("/jobs"))["pagination"]["total"] == before


async def test_pages_and_their_numbers(cody: Cody) -> None:
    ids = [await cody.create(name=f"Page {number}") for number in range(3)][::-1]
    total = (await cody.get("/jobs"))["pagination"]["total"]
    first, second = await cody.get("/jobs", perPage=2), await cody.get("/jobs", perPage=2, page=2)
    assert [job["jobId"] for job in first["jobs"] + second["jobs"]][:3] == ids
    assert second["pagination"] == {"page": 2, "perPage": 2, "total": total, "totalPages": -(-total // 2)}
    beyond = await cody.get("/jobs", perPage=2, page=1_000)
    assert (beyond["jobs"], beyond["pagination"]["total"]) == ([], total)
    assert (await cody.get("/jobs", perPage=5_000))["pagination"]["perPage"] == 100


async def test_a_job_made_by_the_native_api_is_shown(cody: Cody) -> None:
    domain = cody.runs.domain
    repositories = [{"url": "https://git.example/group/tools.git"}, {"url": "git@git.example:group/more"}]
    options = {"publish": "branch"}
    wanted = {"prompt": "Tidy up\nand more", "repositories": repositories, "options": options}
    request = JobRequest.model_validate(wanted)
    submissions: Submissions = domain.submissions
    submitted = await submissions.submit(domain.client, request, key=None, body=b"")
    job_id = f"job-{submitted.job_id}"
    job = await job_of(cody, job_id)
    assert (job["name"], job["description"], job["type"], job["status"]) == ("Tidy up", "", "code", "pending")
    assert job["createPullRequests"] is False
    assert await cody.get(f"/jobs/job-{str(submitted.job_id).upper()}") == job
    assert [each["name"] for each in job["repositories"]] == ["group/tools", "group/more"]
    found = await cody.get(f"/jobs/{job_id}/repositories/group%2Fmore")
    assert found["repositoryName"] == "group/more"
    assert (await listed(cody, job_id) or {})["repositoryCount"] == 2


async def test_a_conversation_is_none_of_this_api(cody: Cody) -> None:
    task = await cody.runs.domain.submit(kind="task")
    answer = await cody.api.alone.get(f"/jobs/job-{task}")
    assert answer.status_code == 404
    assert await listed(cody, f"job-{task}") is None


async def test_the_views_of_a_thread(cody: Cody) -> None:
    job_id = await cody.create()
    (run,) = await cody.runs.claim(job_id)
    call = {"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": {"path": "a"}}
    spoken = {"type": "thinking", "thinking": "hm", "signature": "x"}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such file", "is_error": True}
    turn = {"turn": 1, "stopReason": "tool_use", "usage": {"inputTokens": 3, "outputTokens": 4}, "durationMs": 1_200}
    work = Work(
        messages=[("user", "Do it"), ("assistant", [spoken, call]), ("user", [result])],
        usage=Usage(3, 4, 5, 6),
        turns=[turn],
    )
    await cody.runs.work(run, work)

    async def thread(**query: Any) -> dict[str, Any]:
        found: dict[str, Any] = await cody.get(f"/jobs/{job_id}/repositories/{ENCODED}/claude-thread", **query)
        return found

    standard = await thread()
    assert list(standard) == ["threadId", "messages", "tokenUsage"]
    assert [(each["type"], each["content"]) for each in standard["messages"]] == [
        ("prompt", "Do it"),
        ("tool_call", {"tool": "read_file", "input": {"path": "a"}}),
        ("tool_result", {"result": {"error": "no such file", "success": False}}),
    ]
    assert standard["tokenUsage"] == {"input": 3, "output": 4, "cacheCreation": 6, "cacheRead": 5, "total": 18}
    assert (await result_of(cody, job_id))["claudeConversation"] == standard
    for query in ({"includeTool": "false"}, {"view": "simplified", "includeTool": "true"}, {"includeTool": "FALSE"}):
        assert [each["type"] for each in (await thread(**query))["messages"]] == ["prompt"]

    technical = await thread(view="technical")
    assert technical["messages"] == standard["messages"]
    asked, said, told = technical["rawMessages"]
    assert (asked["content"], asked["turn"]) == ([{"type": "text", "text": "Do it"}], None)
    assert (said["content"], said["turn"], said["durationMs"]) == ([spoken, call], 1, 1_200)
    assert said["usage"] == {"input": 3, "output": 4, "cacheCreation": 0, "cacheRead": 0, "total": 7}
    assert (told["role"], told["content"]) == ("user", [result])
    bare = await thread(view="technical", includeTool="0")
    assert [each["content"] for each in bare["rawMessages"]] == [[{"type": "text", "text": "Do it"}], [spoken], []]


async def test_every_state_of_a_job_is_found_by_its_status(cody: Cody) -> None:
    rows = await cody.runs.domain.rows("SELECT count(*) AS jobs FROM jobs WHERE kind = 'code'")
    statuses = ("pending", "in-progress", "completed", "failed", "cancelled")
    totals = [(await cody.get("/jobs", status=status))["pagination"]["total"] for status in statuses]
    assert sum(totals) == rows[0]["jobs"]
    assert len(statuses) == len({*JobState}) - 1  # one that is being cancelled is cancelled


async def test_names_are_shown_as_they_were_given(cody: Cody) -> None:
    job_id = await cody.create(repositories=["LiamZDenek/Repo1", "liamzdenek/x.git"])
    job = await job_of(cody, job_id)
    assert [each["name"] for each in job["repositories"]] == ["LiamZDenek/Repo1", "liamzdenek/x.git"]
    first, second = await cody.runs.claim(job_id)
    assert (first.repository, second.repository) == (
        "https://github.com/LiamZDenek/Repo1.git",
        "https://github.com/liamzdenek/x.git",
    )
    found = await cody.get(f"/jobs/{job_id}/repositories/{REPOSITORY}")
    assert found["repositoryName"] == "LiamZDenek/Repo1"
