"""Jobs as native jobs: where they work, what they are asked, what is listed, and what is refused."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.contracts.rest import JobRequest
from services.contracts.words import ExitReason
from tests.contract.orchestrator.conftest import Kept, Orchestrator, answered
from tests.contract.serving import Fleet, leave
from tests.integration.jobs.changes import claimed, on_github, show, store

FEATURE = "3f0d1b5e-2f0a-4a57-9c43-1d2f6f0e9a11"


async def refused(orchestrator: Orchestrator, path: str, body: Any = None) -> str:
    return str((await answered(orchestrator.api.post(path, json=body), 400))["error"])


async def test_a_code_job(orchestrator: Orchestrator, kept: Kept) -> None:
    created = await orchestrator.job(kept, branchName="feature-y", featureId=FEATURE, featureTitle="Sign out")
    job, run = await orchestrator.native_run(created["id"])
    assert (job["kind"], job["name"], run["branch"]) == ("code", None, "feature-y")
    assert (run["repository"], run["base_ref"]) == (f"https://github.com/{kept.full_name}.git", "main")
    options = job["options"]
    assert (options["commitMessage"], options["onExisting"]) == ("feat: {branch}", "separate")
    assert (options["publish"], options["pullRequest"].get("title")) == ("pull_request", None)
    assert options["pullRequest"]["body"] == f"{{summary}}\n\n---\n\nSign out: `{FEATURE}`  \nJob: `{{job}}`"
    shown = await orchestrator.shown(created["id"])
    assert shown["feature"] == {"id": FEATURE, "title": "Sign out"}


async def test_a_title_is_the_commit_message_as_it_is(orchestrator: Orchestrator, kept: Kept) -> None:
    created = await orchestrator.job(kept, title=" Fix {prompt}\n now ")
    job, _ = await orchestrator.native_run(created["id"])
    assert (job["name"], job["options"]["commitMessage"]) == ("Fix {prompt} now", "{name}")


async def test_a_task_changes_nothing_and_needs_no_branch(orchestrator: Orchestrator, kept: Kept) -> None:
    created = await orchestrator.job(kept, jobType="task", branchName=None)
    job, run = await orchestrator.native_run(created["id"])
    assert (job["kind"], run["branch"]) == ("task", created["branchName"])


async def test_a_task_of_a_client_without_a_repository(orchestrator: Orchestrator) -> None:
    name = f"Nothing yet {uuid4()}"
    client = await answered(orchestrator.api.post("/clients", json={"name": name}), 201)
    body = {"clientId": client["id"], "prompt": "Hello"}
    created = await answered(orchestrator.api.post("/jobs", json=body | {"jobType": "task"}), 201)
    shown = await orchestrator.shown(created["id"])
    assert (shown["repository"], shown["branch_name"]) == (None, created["branchName"])
    assert "repository" in await refused(orchestrator, "/jobs", body | {"branchName": "x"})


async def test_by_owner_and_name(orchestrator: Orchestrator, kept: Kept) -> None:
    owner, _, name = kept.full_name.partition("/")
    body = {"githubOrg": owner.upper(), "githubRepo": name, "prompt": "Do it", "branchName": "x"}
    created = await answered(orchestrator.api.post("/jobs", json=body), 201)
    shown = await orchestrator.shown(created["id"])
    assert (shown["client"]["id"], shown["repository"]["id"]) == (kept.id, kept.repository)
    assert "githubRepo" in await refused(orchestrator, "/jobs", body | {"githubRepo": "another"})
    assert "githubRepo" in await refused(orchestrator, "/jobs", body | {"githubRepo": None})


async def test_the_repository_is_one_of_the_clients(orchestrator: Orchestrator, kept: Kept) -> None:
    path = f"/clients/{kept.id}/repository"
    second = await answered(orchestrator.api.post(path, json={"githubOrg": "acme", "githubRepo": "second"}), 201)
    assert second["default_branch"] is None
    chosen = await orchestrator.job(kept, repositoryId=second["id"])
    assert (await orchestrator.shown(chosen["id"]))["repository"]["repo_name"] == "second"
    first = await orchestrator.job(kept)
    assert (await orchestrator.shown(first["id"]))["repository"]["id"] == kept.repository
    other = await orchestrator.client()
    body = {"clientId": kept.id, "prompt": "Do it", "branchName": "x"}
    assert "repositoryId" in await refused(orchestrator, "/jobs", body | {"repositoryId": other.repository})
    owner, _, name = other.full_name.partition("/")
    assert "githubRepo" in await refused(orchestrator, "/jobs", body | {"githubOrg": owner, "githubRepo": name})


async def test_a_code_job_needs_a_branch(orchestrator: Orchestrator, kept: Kept) -> None:
    assert "branchName" in await refused(orchestrator, "/jobs", {"clientId": kept.id, "prompt": "Do it"})


async def test_an_unknown_client(orchestrator: Orchestrator) -> None:
    body = {"clientId": str(uuid4()), "prompt": "Do it", "branchName": "x"}
    assert "clientId" in await refused(orchestrator, "/jobs", body)
    assert "clientId" in await refused(orchestrator, "/jobs", {"prompt": "Do it", "branchName": "x"})


async def test_filters_and_pages(orchestrator: Orchestrator, kept: Kept, fleet: Fleet) -> None:
    feature = str(uuid4())
    first, second = [(await orchestrator.job(kept, featureId=feature))["id"] for _ in range(2)]
    await fleet.claim(first)
    third = (await orchestrator.job(kept))["id"]
    await answered(orchestrator.api.post(f"/jobs/{second}/cancel"), 200)

    async def listed(**query: Any) -> tuple[list[str], int]:
        body = await answered(orchestrator.api.get("/jobs", params={"clientId": kept.id} | query), 200)
        return [job["id"] for job in body["jobs"]], body["total"]

    assert await listed() == ([third, second, first], 3)
    assert await listed(status="") == ([third, second, first], 3)
    assert await listed(status="running") == ([first], 1)
    assert await listed(status="queued,running") == ([third, first], 2)
    assert await listed(status="cancelled, failed") == ([second], 1)
    assert await listed(featureId=feature) == ([second, first], 2)
    assert await listed(featureId=feature, status="queued") == ([], 0)
    assert await listed(limit=1) == ([third], 3)
    assert await listed(limit=1, offset=2) == ([first], 3)
    assert await listed(offset=3) == ([], 3)
    assert await listed(limit=5_000, offset="", status=" ", featureId="") == ([third, second, first], 3)
    assert await listed(clientId=str(uuid4())) == ([], 0)


@pytest.mark.parametrize("kind", ["code", "task"])
async def test_a_retry_keeps_the_kind(orchestrator: Orchestrator, kept: Kept, fleet: Fleet, kind: str) -> None:
    created = await orchestrator.job(kept, jobType=kind, featureId=FEATURE)
    run = await fleet.claim(created["id"])
    await fleet.domain.running.fail(run.hold, ExitReason.INTERNAL, error="broken")
    retried = await answered(orchestrator.api.post(f"/jobs/{created['id']}/retry"), 201)
    job, new_run = await orchestrator.native_run(retried["id"])
    old_job, old_run = await orchestrator.native_run(created["id"])
    assert (job["kind"], job["retry_of"], new_run["branch"]) == (kind, old_job["id"], retried["branchName"])
    assert (new_run["repository"], new_run["base_ref"]) == (old_run["repository"], old_run["base_ref"])
    assert job["metadata"] == old_job["metadata"] | {"branch": retried["branchName"]}
    assert job["options"] == old_job["options"]


async def test_a_retry_keeps_what_only_v1_knows(orchestrator: Orchestrator, fleet: Fleet) -> None:
    """Every repository with its checkout, of a job that another way made."""
    places = [{"url": "https://a/one", "branch": "x", "checkout": {"path": "docs"}}, {"url": "https://a/two"}]
    options = {"maxParallel": 1}
    wanted = JobRequest.model_validate({"prompt": "Change it", "repositories": places, "options": options})
    submitted = await fleet.domain.submissions.submit(fleet.domain.client, wanted, key=None, body=b"")
    for _ in places:
        run = await fleet.claim(submitted.job_id)
        await fleet.domain.running.fail(run.hold, ExitReason.INTERNAL, error="broken")
    retried = await answered(orchestrator.api.post(f"/jobs/{submitted.job_id}/retry"), 201)
    query = "SELECT * FROM runs WHERE job_id = $1 ORDER BY position"
    old, new = [await fleet.domain.rows(query, UUID(str(each))) for each in (submitted.job_id, retried["id"])]
    assert [run["repository"] for run in new] == ["https://a/one", "https://a/two"]
    assert new[0]["checkout"] == old[0]["checkout"]
    assert retried["branchName"] == new[0]["branch"]
    milliseconds = retried["branchName"].removeprefix("x-retry-")
    assert new[1]["branch"] == f"{old[1]['branch']}-retry-{milliseconds}"
    assert (await orchestrator.shown(retried["id"]))["branch_name"] == retried["branchName"]


async def test_only_a_failed_job_is_retried(orchestrator: Orchestrator, kept: Kept, fleet: Fleet) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    assert "queued" in await refused(orchestrator, f"/jobs/{job_id}/retry")
    run = await fleet.claim(job_id)
    assert "running" in await refused(orchestrator, f"/jobs/{job_id}/retry")
    await fleet.domain.finish(run)
    assert "completed" in await refused(orchestrator, f"/jobs/{job_id}/retry")
    assert "completed" in await refused(orchestrator, f"/jobs/{job_id}/cancel")
    cancelled = (await orchestrator.job(kept))["id"]
    await answered(orchestrator.api.post(f"/jobs/{cancelled}/cancel"), 200)
    assert "cancelled" in await refused(orchestrator, f"/jobs/{cancelled}/retry")


@pytest.mark.parametrize("verb", ["message", "complete"])
async def test_who_cannot_be_talked_with(orchestrator: Orchestrator, kept: Kept, fleet: Fleet, verb: str) -> None:
    body = {"message": "Hello"}
    code, waiting = await orchestrator.job(kept), await orchestrator.job(kept, jobType="task")
    assert "queued" in await refused(orchestrator, f"/jobs/{waiting['id']}/{verb}", body)
    run = await fleet.claim(code["id"])
    assert "task" in await refused(orchestrator, f"/jobs/{code['id']}/{verb}", body)
    await fleet.domain.finish(run)
    assert "completed" in await refused(orchestrator, f"/jobs/{code['id']}/{verb}", body)
    await fleet.claim(waiting["id"])
    await answered(orchestrator.api.post(f"/jobs/{waiting['id']}/cancel"), 200)
    assert "cancelled" in await refused(orchestrator, f"/jobs/{waiting['id']}/{verb}", body)


async def test_a_job_whose_change_is_being_pushed_is_not_cancelled(
    orchestrator: Orchestrator, kept: Kept, fleet: Fleet
) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    publication = await claimed(fleet.domain, await store(fleet.domain, await fleet.claim(job_id)))
    assert "pushed" in await refused(orchestrator, f"/jobs/{job_id}/cancel")
    assert (await orchestrator.shown(job_id))["status"] == "running"
    await show(fleet.domain, publication, on_github(9))
    assert (await orchestrator.shown(job_id))["status"] == "completed"


async def test_a_failed_job_says_why(orchestrator: Orchestrator, kept: Kept, fleet: Fleet) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    run = await fleet.claim(job_id)
    await fleet.domain.running.fail(run.hold, ExitReason.CLONE_FAILED, error="authentication failed")
    job = await orchestrator.shown(job_id, includeMessages=True)
    assert (job["status"], job["error"]) == ("failed", "authentication failed")
    told = [(each["type"], each["content"]) for each in job["messages"]]
    assert told == [
        ("system", "Job queued"),
        ("system", "Job started"),
        ("stderr", "authentication failed"),
        ("system", "Job failed: authentication failed"),
    ]


async def test_a_job_that_was_started_is_never_queued_again(
    orchestrator: Orchestrator, kept: Kept, fleet: Fleet
) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    run = await fleet.claim(job_id)
    await fleet.domain.running.retry(run.hold, error="again", delay=timedelta())
    assert (await orchestrator.shown(job_id))["status"] == "running"


async def test_a_job_that_its_agent_never_took_up_is_never_queued_again(
    orchestrator: Orchestrator, kept: Kept, fleet: Fleet
) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    order = await fleet.give(job_id)
    assert (await orchestrator.shown(job_id))["status"] == "running"
    await leave(fleet.domain, order)
    await fleet.claim(job_id)
    job = await orchestrator.shown(job_id, includeMessages="true")
    assert job["status"] == "running"
    assert [each["content"] for each in job["messages"]] == [
        "Job queued",
        "Job started",
        "Job is to be continued: unclaimed",
        "Job continued",
    ]


async def test_another_clients_jobs_are_not_there(orchestrator: Orchestrator) -> None:
    made = await answered(orchestrator.served.native.post("/v1/jobs", json={"prompt": "p", "kind": "task"}), 201)
    UUID(made["id"])
    for path in (f"/jobs/{made['id']}", f"/jobs/{made['id']}?includeMessages=true"):
        await answered(orchestrator.api.get(path), 404)


async def test_both_places_show_the_same(orchestrator: Orchestrator, kept: Kept) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    for api in (orchestrator.served.alone, orchestrator.served.mounted):
        assert (await answered(api.get(f"/jobs/{job_id}"), 200))["id"] == job_id
