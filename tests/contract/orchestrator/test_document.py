"""Every endpoint of the published document: the requests that it prints, and answers with the fields that it shows."""

import re
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.contracts.words import ExitReason
from services.gateway.dialects.orchestrator.standing import VERSION
from tests.contract.orchestrator import document
from tests.contract.orchestrator.conftest import Kept, Orchestrator, answered
from tests.contract.serving import Fleet
from tests.integration.jobs.changes import publish

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def test_health_is_open(orchestrator: Orchestrator) -> None:
    health = await answered(orchestrator.api.get("/health", headers={"Authorization": ""}), 200)
    assert list(health) == document.HEALTH
    assert list(health["queue"]) == document.QUEUE
    assert health["status"] == "ok"
    assert health["claude"] | {"authenticated": False} == {"authenticated": False, "version": VERSION}
    assert health["git"] == {"authenticated": False}


async def test_clients(orchestrator: Orchestrator, kept: Kept) -> None:
    body = await answered(orchestrator.api.get("/clients"), 200)
    (client,) = [each for each in body["clients"] if each["id"] == kept.id]
    assert list(client) == document.LISTED_CLIENT
    assert client["name"] == kept.name
    (repository,) = client["repositories"]
    assert list(repository) == document.REPOSITORY
    owner, _, name = kept.full_name.partition("/")
    assert repository == {"id": kept.repository, "owner_name": owner, "repo_name": name, "default_branch": "main"}


async def test_a_client(orchestrator: Orchestrator, kept: Kept) -> None:
    client = await answered(orchestrator.api.get(f"/clients/{kept.id}"), 200)
    assert list(client)[:3] == document.CLIENT
    assert (client["id"], client["name"], client["repository"]["id"]) == (kept.id, kept.name, kept.repository)
    assert list(client["repository"]) == document.REPOSITORY


async def test_adding_a_repository(orchestrator: Orchestrator) -> None:
    made = await answered(orchestrator.api.post("/clients", json={"name": "Owner of the printed one"}), 201)
    assert made["repository"] is None
    path = f"/clients/{made['id']}/repository"
    repository = await answered(orchestrator.api.post(path, json=document.ADD_REPOSITORY), 201)
    assert list(repository)[:4] == document.REPOSITORY
    UUID(repository["id"])
    assert (repository["owner_name"], repository["repo_name"]) == ("owner-name", "repo-name")
    assert repository["default_branch"] == "main"
    assert repository["clone_url"] == "https://github.com/owner-name/repo-name.git"


async def test_creating_a_job(orchestrator: Orchestrator, kept: Kept) -> None:
    ids = {"clientId": kept.id, "repositoryId": kept.repository}
    ids |= {"featureId": str(uuid4()), "createdByTeamMemberId": str(uuid4())}
    created = await answered(orchestrator.api.post("/jobs", json=document.CREATE_JOB | ids), 201)
    assert list(created) == document.CREATED_JOB
    UUID(created["id"])
    assert (created["status"], created["branchName"]) == ("queued", "feature-x")
    assert created["position"] >= 1
    assert TIME.fullmatch(created["createdAt"])

    job = await orchestrator.shown(created["id"])
    assert list(job)[:8] == document.JOB
    assert "messages" not in job
    owner, _, name = kept.full_name.partition("/")
    assert job["client"] == {"id": kept.id, "name": kept.name}
    assert job["feature"] == {"id": ids["featureId"], "title": None}
    assert job["repository"] == {"id": kept.repository, "owner_name": owner, "repo_name": name}
    assert (job["job_type"], job["prompt"], job["branch_name"]) == ("code", "Your task description...", "feature-x")
    assert (job["title"], job["created_by_team_member_id"]) == ("Job title", ids["createdByTeamMemberId"])


async def test_the_list_of_jobs(orchestrator: Orchestrator, kept: Kept) -> None:
    made = [(await orchestrator.job(kept))["id"] for _ in range(3)]
    body = await answered(orchestrator.api.get("/jobs", params={"clientId": kept.id}), 200)
    assert list(body) == ["jobs", "total"]
    assert ([job["id"] for job in body["jobs"]], body["total"]) == (made[::-1], 3)
    assert list(body["jobs"][0])[:8] == document.JOB


@pytest.mark.parametrize("is_started", [False, True])
async def test_cancelling(orchestrator: Orchestrator, fleet: Fleet, kept: Kept, is_started: bool) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    if is_started:
        await fleet.claim(job_id)
    cancelled = await answered(orchestrator.api.post(f"/jobs/{job_id}/cancel"), 200)
    assert list(cancelled) == document.CANCELLED_JOB
    assert cancelled == {"id": job_id, "status": "cancelled", "wasRunning": is_started}
    assert (await orchestrator.shown(job_id))["status"] == "cancelled"
    again = await answered(orchestrator.api.post(f"/jobs/{job_id}/cancel"), 400)
    assert "cancelled" in again["error"]


async def test_retrying(orchestrator: Orchestrator, fleet: Fleet, kept: Kept) -> None:
    created = await orchestrator.job(kept, branchName="feature-x")
    run = await fleet.claim(created["id"])
    await fleet.domain.running.fail(run.hold, ExitReason.MAX_TURNS, error="it took too many turns")
    retried = await answered(orchestrator.api.post(f"/jobs/{created['id']}/retry"), 201)
    assert list(retried) == document.RETRIED_JOB
    assert (retried["originalJobId"], retried["status"]) == (created["id"], "queued")
    assert re.fullmatch(r"feature-x-retry-\d{13}", retried["branchName"])
    old, new = await orchestrator.shown(created["id"]), await orchestrator.shown(retried["id"])
    assert (old["status"], old["error"]) == ("failed", "it took too many turns")
    assert new["original_job_id"] == old["id"]
    for name in ("prompt", "job_type", "client", "feature", "repository", "title"):
        assert new[name] == old[name], name


async def test_the_queue(orchestrator: Orchestrator, fleet: Fleet, kept: Kept) -> None:
    running = await orchestrator.job(kept, title="Runs")
    await fleet.claim(running["id"])
    queued = await orchestrator.job(kept, title="Waits")
    body = await answered(orchestrator.api.get("/queue"), 200)
    assert list(body) == document.QUEUE
    assert body["maxConcurrent"] == 90
    assert body["queued"][-1] == {"id": queued["id"], "title": "Waits", "created_at": queued["createdAt"]}
    (found,) = [each for each in body["running"] if each["id"] == running["id"]]
    assert (list(found), found["title"]) == (["id", "title", "started_at"], "Runs")
    assert TIME.fullmatch(found["started_at"])


async def test_the_end_of_a_code_job(orchestrator: Orchestrator, fleet: Fleet, kept: Kept) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    await publish(fleet.domain, await fleet.claim(job_id), 123)
    job = await orchestrator.shown(job_id)
    assert (job["status"], job["error"]) == ("completed", None)
    assert job["pr_url"] == "https://forge.example/a/one/pull/123"
    for name in ("created_at", "started_at", "completed_at"):
        assert TIME.fullmatch(job[name]), name


async def test_nothing_to_change(orchestrator: Orchestrator, fleet: Fleet, kept: Kept) -> None:
    job_id = (await orchestrator.job(kept))["id"]
    await fleet.domain.finish(await fleet.claim(job_id))
    job = await orchestrator.shown(job_id, includeMessages="true")
    assert (job["status"], job["error"], job["pr_url"]) == ("completed", "No changes were made", None)
    assert job["messages"][-1]["content"] == "Job completed: No changes were made"


def errors() -> list[tuple[str, str, dict[str, Any] | None]]:
    unknown = "00000000-0000-4000-8000-000000000000"
    jobs = [(f"/jobs/{unknown}/{verb}", None) for verb in ("cancel", "retry", "complete")]
    posts = [*jobs, (f"/jobs/{unknown}/message", document.MESSAGE), (f"/repos/{unknown}/clone", None)]
    posts.append((f"/clients/{unknown}/repository", document.ADD_REPOSITORY))
    gets = [("GET", path, None) for path in (f"/jobs/{unknown}", f"/clients/{unknown}")]
    return [*gets, *(("POST", path, body) for path, body in posts)]


@pytest.mark.parametrize(("method", "path", "body"), errors())
async def test_what_is_not_there(orchestrator: Orchestrator, method: str, path: str, body: Any) -> None:
    answer = await answered(orchestrator.api.request(method, path, json=body), 404)
    assert list(answer) == ["error"]


@pytest.mark.parametrize("key", ["Bearer wrong", "Bearer", ""])
@pytest.mark.parametrize("path", ["/clients", "/jobs", "/queue"])
async def test_without_the_secret(orchestrator: Orchestrator, path: str, key: str) -> None:
    answer = await answered(orchestrator.api.get(path, headers={"Authorization": key}), 401)
    assert list(answer) == ["error"]
