"""Tasks as jobs: what is asked of them, their states, who sees them and for how long."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from services.contracts.words import ChangesetState, ExitReason, Outcome, Publish
from services.gateway.webhooks.requests import KIND_KEY
from services.jobs.publishing import Shown
from services.jobs.rescuing import Rescuing
from services.jobs.submission import NewJob
from services.jobs.tracking import Observed
from tests.contract.codebot.conftest import OTHER_KEY, Codebot, running_codebot
from tests.contract.codebot.document import SUBMISSION
from tests.contract.serving import Fleet, leave
from tests.integration.gateway.conftest import KEY as NATIVE_KEY
from tests.integration.gateway.conftest import client_of
from tests.integration.jobs.changes import HOUR, claimed, publish, show, tracked
from tests.integration.jobs.domain import COMMIT, REPOSITORY, job_request

DAY = timedelta(days=1)


async def key_of_codebot(codebot: Codebot) -> httpx.AsyncClient:
    """`/v1` with the key that an operator makes for the client `codebot`."""
    (client,) = (await codebot.served.native.get("/v1/clients", params={"name": "codebot"})).json()["items"]
    made = await codebot.served.native.post(f"/v1/clients/{client['id']}/key")
    return client_of(codebot.served.native.base_url.port or 0, made.json()["apiKey"])


async def run_of(codebot: Codebot, task_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job and its run as `/v1` has them."""
    async with await key_of_codebot(codebot) as native:
        job = (await native.get(f"/v1/jobs/{task_id}")).json()
        (run,) = (await native.get(f"/v1/jobs/{task_id}/runs")).json()["items"]
    return job, run


async def test_a_task_is_a_job_of_the_client_codebot(codebot: Codebot) -> None:
    task_id = await codebot.submit(base_branch="develop", test_command="make test")
    job, run = await run_of(codebot, task_id)
    assert (job["state"], job["prompt"]) == ("queued", SUBMISSION["description"])
    assert {"ticket_id": "FEAT-123", "ticket_summary": "add-dark-mode"}.items() <= job["metadata"].items()
    assert (run["repository"], run["baseRef"]) == (SUBMISSION["repository_url"], "develop")
    assert re.fullmatch(r"u/codebot/FEAT-123/[0-9a-f]{7}/add-dark-mode", run["branch"])
    options = job["options"]
    assert (options["testCommand"], options["pullRequest"]["title"]) == ("make test", "add-dark-mode")
    assert (options["publish"], options["onExisting"]) == ("pull_request", "separate")


async def test_what_is_not_given_is_found_out(codebot: Codebot) -> None:
    description = "  Make it " + "very " * 40 + "dark\nand more"
    answer = await codebot.served.alone.post(
        "/api/tasks/submit",
        json={"repository_url": "x", "description": description, "ticket_id": "", "test_command": None, "more": [1]},
    )
    job, run = await run_of(codebot, answer.json()["task_id"])
    assert re.fullmatch(r"u/codebot/[0-9a-f]{7}", run["branch"])
    assert (run["baseRef"], job["options"]["testCommand"]) == (None, "auto")
    title = job["options"]["pullRequest"]["title"]
    assert title == description.strip()[:100].strip()


async def test_a_job_of_the_client_that_came_by_v1_is_a_task(codebot: Codebot) -> None:
    async with await key_of_codebot(codebot) as native:
        repository = "https://forge.example/a/one.git"
        made = await native.post("/v1/jobs", json={"prompt": "p" * 300, "repositories": [{"url": repository}]})
    (task,) = await codebot.tasks()
    assert (task["task_id"], task["repository_url"]) == (made.json()["id"], repository)
    assert task["description"] == "p" * 100


async def test_other_clients_jobs_are_not_found(codebot: Codebot) -> None:
    made = await codebot.served.native.post("/v1/jobs", json={"prompt": "p", "kind": "task"})
    answer = await codebot.served.alone.get(f"/api/tasks/{made.json()['id']}/status")
    assert (answer.status_code, answer.json()["error"]) == (404, "Not Found")
    assert await codebot.tasks() == []
    task_id = await codebot.submit()
    assert (await codebot.served.native.get(f"/v1/jobs/{task_id}")).status_code == 404


async def test_both_places_and_both_keys_see_the_same_tasks(codebot: Codebot) -> None:
    task_id = await codebot.submit()
    for client, headers in (
        (codebot.served.mounted, {}),
        (codebot.served.alone, {"Authorization": "", "X-API-Key": OTHER_KEY}),
        (codebot.served.alone, {"Authorization": "Bearer wrong", "X-API-Key": OTHER_KEY}),
    ):
        answer = await client.get("/api/tasks", headers=headers)
        assert [task["task_id"] for task in answer.json()["tasks"]] == [task_id], answer.text


async def test_a_native_key_opens_nothing_here_and_ours_nothing_there(codebot: Codebot) -> None:
    refused = await codebot.served.alone.get("/api/tasks", headers={"Authorization": f"Bearer {NATIVE_KEY}"})
    assert refused.status_code == 401
    ours = codebot.served.alone.headers["Authorization"]
    assert (await codebot.served.native.get("/v1/jobs", headers={"Authorization": ours})).status_code == 401


async def test_a_task_that_was_started_is_never_pending_again(codebot: Codebot, fleet: Fleet) -> None:
    task_id = await codebot.submit()
    run = await fleet.claim(task_id)
    await fleet.domain.running.retry(run.hold, error="again", delay=timedelta())
    assert (await codebot.status(task_id))["status"] == "running"
    again = await fleet.claim(task_id)
    changeset_id = await fleet.domain.running.deliver(
        again.hold, COMMIT, publish=Publish.PULL_REQUEST, summary="done", verified=True
    )
    assert (await codebot.status(task_id))["status"] == "running"
    await show(fleet.domain, await claimed(fleet.domain, changeset_id), Shown("local", "/changesets/1", None, DAY))
    result = (await codebot.status(task_id))["result"]
    assert (result["tests_passed"], result["outcome"], result["summary"]) == (True, "delivered", "done")


async def test_a_task_that_its_agent_never_took_up_is_never_pending_again(codebot: Codebot, fleet: Fleet) -> None:
    task_id = await codebot.submit()
    order = await fleet.give(task_id)
    assert (await codebot.status(task_id))["status"] == "running"
    await leave(fleet.domain, order)
    assert (await codebot.status(task_id))["status"] == "running"
    job, run = await run_of(codebot, task_id)
    assert (job["state"], run["state"], run["attempt"], run["agent"]) == ("running", "queued", 1, None)
    assert (await fleet.claim(task_id)).hold.attempt == 2


@pytest.mark.parametrize("step", ["waits", "given", "begun"])
async def test_a_cancelled_task_failed(codebot: Codebot, fleet: Fleet, step: str) -> None:
    task_id = await codebot.submit()
    if step == "given":
        await fleet.give(task_id)
    elif step == "begun":
        await fleet.claim(task_id)
    await fleet.domain.cancelling.request(fleet.domain.client, UUID(task_id))
    task = await codebot.status(task_id)
    assert (task["status"], task["error"]) == ("failed", "cancelled")
    assert task["completed_at"] is not None
    assert "result" not in task
    (shown,) = await codebot.tasks(status="failed")
    assert shown["completed_at"] == task["completed_at"]


async def test_no_change_is_no_pull_request(codebot: Codebot, fleet: Fleet) -> None:
    task_id = await codebot.submit()
    run = await fleet.claim(task_id)
    await fleet.domain.running.complete(run.hold, Outcome.NO_CHANGES, summary="it is dark already")
    result = (await codebot.status(task_id))["result"]
    assert (result["pr_url"], result["outcome"], result["tests_passed"]) == (None, "no_changes", None)
    assert result["summary"] == "it is dark already"


async def test_a_pull_request_of_the_local_forge_can_be_looked_at_with_a_key(codebot: Codebot, fleet: Fleet) -> None:
    task_id = await codebot.submit()
    run = await fleet.claim(task_id)
    changeset_id = await fleet.domain.running.deliver(run.hold, COMMIT, publish=Publish.PULL_REQUEST, summary="done")
    shown = Shown("local", f"/changesets/{changeset_id}", None, DAY)
    await show(fleet.domain, await claimed(fleet.domain, changeset_id), shown)
    for client in (codebot.served.alone, codebot.served.mounted):
        url = (await client.get(f"/api/tasks/{task_id}/status")).json()["result"]["pr_url"]
        assert url.startswith(str(client.base_url).rstrip("/"))
        page = await client.get(url, auth=("", OTHER_KEY))
        assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        refused = await client.get(url, auth=("", NATIVE_KEY))
        assert (refused.status_code, refused.json()["error"]) == (401, "Unauthorized")
        assert refused.headers["WWW-Authenticate"].startswith("Basic")


async def test_tasks_are_listed_newest_first_up_to_the_limit(codebot: Codebot, fleet: Fleet) -> None:
    tasks = [await codebot.submit() for _ in range(5)]
    failed = await fleet.claim(tasks[1])
    await fleet.domain.running.fail(failed.hold, ExitReason.STUCK, error="round and round")
    await publish(fleet.domain, await fleet.claim(tasks[3]), 1)
    assert [task["task_id"] for task in await codebot.tasks()] == tasks[::-1]
    assert [task["task_id"] for task in await codebot.tasks(limit=2)] == [tasks[4], tasks[3]]
    assert [task["task_id"] for task in await codebot.tasks(status="failed")] == [tasks[1]]
    assert [task["task_id"] for task in await codebot.tasks(status="completed")] == [tasks[3]]


async def test_tasks_that_ended_before_the_retention_are_not_shown(codebot: Codebot, fleet: Fleet) -> None:
    old, new, waiting = [await codebot.submit() for _ in range(3)]
    for task_id in (old, new):
        await fleet.domain.finish(await fleet.claim(task_id))
    long_ago = "UPDATE jobs SET finished_at = now() - interval '25 hours' WHERE id = $1"
    await fleet.domain.execute(long_ago, UUID(old))
    await fleet.domain.execute("UPDATE jobs SET created_at = now() - interval '9 days' WHERE id = $1", UUID(waiting))
    assert (await codebot.served.alone.get(f"/api/tasks/{old}/status")).status_code == 404
    assert [task["task_id"] for task in await codebot.tasks()] == [waiting, new]
    assert [task["task_id"] for task in await codebot.tasks(status="completed")] == [new]


async def test_where_a_task_worked_is_told_for_as_long_as_it_is_kept(
    database_url: str, nats_url: str, fleet: Fleet
) -> None:
    async with running_codebot(
        database_url, nats_url, work_dir="/data/worktrees", task_retention_seconds=60
    ) as codebot:
        task_ids = [await codebot.submit() for _ in range(3)]
        runs = [await fleet.claim(task_id) for task_id in task_ids]
        changes = [await publish(fleet.domain, run, number) for number, run in enumerate(runs[:2], 1)]
        await fleet.domain.finish(runs[2])
        for task_id, run in zip(task_ids, runs, strict=True):
            assert await _work_dir(codebot, task_id) == f"/data/worktrees/{run.hold.run_id}/1"
            assert (await Rescuing(fleet.domain.database).attempts_kept([run.hold.run_id])) == {run.hold.run_id: 1}
        merged = Observed(ChangesetState.MERGED, merge_sha="d" * 40)
        await fleet.domain.tracking.record(await tracked(fleet.domain, changes[0]), merged, again=HOUR)
        assert await _work_dir(codebot, task_ids[0]) is None
        await fleet.domain.execute("UPDATE runs SET finished_at = now() - interval '61 seconds'")
        assert [await _work_dir(codebot, task_id) for task_id in task_ids] == [None] * 3
        assert await Rescuing(fleet.domain.database).attempts_kept([run.hold.run_id for run in runs]) == {}


async def _work_dir(codebot: Codebot, task_id: str) -> str | None:
    found: str | None = (await codebot.status(task_id))["result"]["work_dir"]
    return found


async def test_reviews_have_a_queue_of_their_own_and_are_no_tasks(codebot: Codebot, fleet: Fleet) -> None:
    asked = NewJob.of(fleet.domain.client, job_request(REPOSITORY, metadata={KIND_KEY: "review"}), key=None, body=b"")
    await fleet.domain.submissions.accept(replace(asked, is_review=True))
    health = (await codebot.served.alone.get("/health")).json()
    assert (health["review_queue_size"], health["task_queue_size"]) == (1, 0)
    assert await codebot.tasks() == []


async def test_a_full_queue_says_so_at_once(database_url: str, nats_url: str) -> None:
    async with running_codebot(database_url, nats_url, max_queue_size=2) as codebot:
        for _ in range(2):
            await codebot.submit()
        answer = await codebot.served.alone.post("/api/tasks/submit", json=SUBMISSION)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["error"] == "Service Unavailable"
        assert list(answer.json()) == ["error", "message"]
        assert len(await codebot.tasks()) == 2


async def test_as_many_tasks_run_as_there_are_workers(database_url: str, nats_url: str, fleet: Fleet) -> None:
    async with running_codebot(database_url, nats_url, max_workers=2) as codebot:
        for _ in range(3):
            await codebot.submit()
        assert len(await fleet.domain.admit()) == 2
