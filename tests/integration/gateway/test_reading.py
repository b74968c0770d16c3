"""Reading and cancelling: pages without holes, filters, each tenant alone, and every error a problem document."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest

from services.runtime.postgres import Database
from tests.integration.gateway.conftest import KEY, Scheduler

REPOSITORIES = [{"url": f"https://forge.example/{number}.git"} for number in range(5)]
PATCH = b"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-<script>alert(1)</script>\n+caf\xe9 \x1b[31m\n"


async def submit(client: httpx.AsyncClient, **body: object) -> str:
    answer = await client.post("/v1/jobs", json={"prompt": "x", "kind": "task", **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def pages(client: httpx.AsyncClient, path: str, **parameters: str | int) -> list[list[str]]:
    found: list[list[str]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await client.get(httpx.URL(path).copy_merge_params({**parameters, **cursor}))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found.append([item["id"] for item in page["items"]])
        if page["nextCursor"] is None:
            return found
        cursor = {"cursor": page["nextCursor"]}


async def test_pages_of_jobs_miss_nothing_and_repeat_nothing_while_more_come(gateway: httpx.AsyncClient):
    jobs = [await submit(gateway) for _ in range(5)]
    first = (await gateway.get("/v1/jobs", params={"limit": 2})).json()
    await submit(gateway)
    rest = await pages(gateway, "/v1/jobs", limit=2, cursor=first["nextCursor"])
    assert [item["id"] for item in first["items"]] + rest[0] + rest[1] == jobs[::-1]


async def test_a_full_last_page_has_no_next_one(gateway: httpx.AsyncClient):
    for _ in range(4):
        await submit(gateway)
    assert [len(page) for page in await pages(gateway, "/v1/jobs", limit=2)] == [2, 2]


async def test_pages_of_runs_are_in_the_order_of_the_repositories(gateway: httpx.AsyncClient):
    job = await submit(gateway, kind="code", repositories=REPOSITORIES)
    answer = await gateway.get(f"/v1/jobs/{job}/runs", params={"limit": 200})
    assert [run["repository"] for run in answer.json()["items"]] == [each["url"] for each in REPOSITORIES]
    by_two = await pages(gateway, f"/v1/jobs/{job}/runs", limit=2)
    assert [len(page) for page in by_two] == [2, 2, 1]
    assert [run for page in by_two for run in page] == [run["id"] for run in answer.json()["items"]]


async def test_jobs_are_filtered(gateway: httpx.AsyncClient):
    code = await submit(gateway, kind="code", name="a name", repositories=REPOSITORIES[:1])
    middle = datetime.now(UTC).isoformat()
    task = await submit(gateway)
    await gateway.post(f"/v1/jobs/{task}/cancel")

    async def found(query: str) -> list[str]:
        return (await pages(gateway, f"/v1/jobs?{query}"))[0]

    both = [task, code]
    assert await found("state=queued") == [code]
    assert await found("state=queued,cancelling") == both
    assert await found("state=queued&state=cancelling") == both
    assert await found("kind=task") == [task]
    assert await found("name=a+name") == [code]
    assert await found(f"repository={REPOSITORIES[0]['url']}") == [code]
    quoted = middle.replace("+", "%2B")
    assert await found(f"createdAfter={quoted}") == [task]
    assert await found(f"createdBefore={quoted}") == [code]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=name", "sort"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("state=done", "state[0]"),
        ("state=queued,", "state[1]"),
        ("kind=", "kind"),
        ("cursor=nonsense", "cursor"),
        ("cursor=%C3%A4", "cursor"),
        ("cursor=", "cursor"),
        ("createdAfter=yesterday", "createdAfter"),
        ("createdAfter=2026-01-31T12:00:00", "createdAfter"),
        ("name=a%00b", "name"),
        ("repository=%ED%A0%80%00", "repository"),
    ],
)
async def test_a_wrong_parameter_is_named(shared_gateway: httpx.AsyncClient, query: str, field: str):
    answer = await shared_gateway.get(f"/v1/jobs?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "query",
    [
        "createdAfter=0001-01-01T00:00:00%2B23:00",
        "createdBefore=9999-12-31T23:59:59-23:00",
        "%ED%A0%80=1",
        "name=%ED%A0%80",
        "cursor=" + "A" * 200,
        "limit=" + "9" * 5_000,
    ],
)
async def test_no_parameter_makes_the_server_fail(shared_gateway: httpx.AsyncClient, query: str):
    answer = await shared_gateway.get(f"/v1/jobs?{query}")
    assert answer.status_code in (200, 400), answer.text


async def test_another_tenant_sees_nothing(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient, database: Database
):
    job = await submit(gateway, kind="code", repositories=REPOSITORIES[:1])
    run = (await gateway.get(f"/v1/jobs/{job}/runs")).json()["items"][0]["id"]
    changeset = await store_changeset(database, run)
    paths = [f"/v1/jobs/{job}", f"/v1/jobs/{job}/runs", f"/v1/jobs/{job}/events", f"/v1/runs/{run}"]
    paths += [f"/v1/runs/{run}/{what}" for what in ("diff", "transcript", "logs")] + [f"/v1/changesets/{changeset}"]
    for path in paths:
        if not path.endswith("events"):
            assert (await gateway.get(path)).status_code == 200, path
        assert (await other_client.get(path)).status_code == 404, path
    for path in (f"/v1/jobs/{job}/cancel", f"/v1/runs/{run}/cancel"):
        assert (await other_client.post(path)).status_code == 404, path
    for path in ("/v1/jobs", "/v1/changesets", f"/v1/changesets?jobId={job}"):
        assert (await other_client.get(path)).json()["items"] == [], path
    assert (await gateway.get(f"/v1/jobs/{job}")).json()["cancelRequestedAt"] is None


async def test_a_cancel_is_accepted_once_and_refused_after_the_end(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    for _ in range(2):
        answer = await gateway.post(f"/v1/jobs/{job}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    ended = await submit(gateway)
    await scheduler.finish(ended)
    answer = await gateway.post(f"/v1/jobs/{ended}/cancel")
    assert answer.status_code == 409
    assert "completed" in answer.json()["detail"]


async def test_one_run_is_cancelled_alone(gateway: httpx.AsyncClient):
    job = await submit(gateway, kind="code", repositories=REPOSITORIES[:2])
    runs = (await pages(gateway, f"/v1/jobs/{job}/runs"))[0]
    answer = await gateway.post(f"/v1/runs/{runs[0]}/cancel")
    assert answer.status_code == 202
    assert answer.json()["cancelRequestedAt"] is not None
    assert (await gateway.get(f"/v1/runs/{runs[1]}")).json()["cancelRequestedAt"] is None


async def store_changeset(database: Database, run: str) -> UUID:
    changeset = uuid4()
    async with database.connection() as connection:
        await connection.execute(
            """INSERT INTO changesets (id, run_id, job_id, client_id, repository, branch, base_sha, commit_sha,
                   commit_author_name, commit_author_email, commit_time, commit_message, patch, files, insertions,
                   deletions, state)
               SELECT $1, id, job_id, client_id, '<b>repository</b>', branch, 'b', 'c', 'n', 'e', now(), 'm', $3,
                   '[{"path": "a", "change": "modified", "insertions": 1, "deletions": 1, "binary": false}]'::jsonb,
                   1, 1, 'stored'
               FROM runs WHERE id = $2""",
            changeset,
            UUID(run),
            PATCH,
        )
    return changeset


async def test_what_a_run_leaves_is_read(gateway: httpx.AsyncClient, database: Database):
    job = await submit(gateway, kind="code", repositories=REPOSITORIES[:1])
    run = (await pages(gateway, f"/v1/jobs/{job}/runs"))[0][0]
    assert (await gateway.get(f"/v1/runs/{run}/diff")).status_code == 404
    changeset = str(await store_changeset(database, run))
    diff = await gateway.get(f"/v1/runs/{run}/diff")
    assert diff.headers["Content-Type"] == "text/x-diff; charset=utf-8"
    assert diff.content == PATCH
    for query in (f"jobId={job}", f"runId={run}", "state=stored", "repository=%3Cb%3Erepository%3C/b%3E"):
        assert (await pages(gateway, f"/v1/changesets?{query}")) == [[changeset]], query
    assert (await pages(gateway, f"/v1/changesets?jobId={uuid4()}")) == [[]]
    assert (await gateway.get(f"/v1/runs/{run}")).json()["changeset"]["id"] == changeset
    assert (await gateway.get(f"/v1/runs/{run}/transcript")).json() == {"runId": run, "messages": []}
    assert (await gateway.get(f"/v1/runs/{run}/logs")).json() == {"runId": run, "lines": []}


async def test_a_changesets_page_is_safe_to_look_at(gateway: httpx.AsyncClient, database: Database):
    job = await submit(gateway, kind="code", repositories=REPOSITORIES[:1])
    run = (await pages(gateway, f"/v1/jobs/{job}/runs"))[0][0]
    path = f"/changesets/{await store_changeset(database, run)}"
    refused = await gateway.get(path)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    page = await gateway.get(path, auth=("anyone", KEY))
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "&lt;b&gt;repository&lt;/b&gt;" in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script" not in page.text
    assert "\x1b" not in page.text


UNKNOWN = "6f1b4f0e-5a3c-4f4e-9a65-0d6c1f0b7a11"


@pytest.mark.parametrize("what", ["jobs", "runs", "changesets"])
@pytest.mark.parametrize("identifier", [UNKNOWN, "1", "%00", "{" + UNKNOWN + "}", "x" * 2_000])
async def test_unknown_and_malformed_ids_are_404(shared_gateway: httpx.AsyncClient, what: str, identifier: str):
    answer = await shared_gateway.get(f"/v1/{what}/{identifier}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_unknown_paths_and_methods_are_problems_too(shared_gateway: httpx.AsyncClient):
    nowhere = await shared_gateway.get("/v1/nothing")
    assert (nowhere.status_code, nowhere.json()["status"]) == (404, 404)
    wrong = await shared_gateway.delete("/v1/jobs")
    assert wrong.status_code == 405
    assert set(wrong.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}
    assert wrong.json()["title"] == "Method Not Allowed"


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Bearer", "Basic eDp5", KEY, "Bearer \xe4", "Bearer " + "x" * 5_000]
)
async def test_without_a_known_key_there_is_nothing(shared_gateway: httpx.AsyncClient, authorization: str | None):
    headers = {b"Authorization": (authorization or "").encode("latin-1")}
    answer = await shared_gateway.get("/v1/jobs", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "API key" in answer.json()["detail"]


async def test_every_answer_has_a_request_id(shared_gateway: httpx.AsyncClient):
    given = await shared_gateway.get("/v1/jobs", headers={"X-Request-Id": "mine-1"})
    assert given.headers["X-Request-Id"] == "mine-1"
    made = await shared_gateway.get("/v1/nothing", headers={"X-Request-Id": "bad id"})
    assert len(made.headers["X-Request-Id"]) == 32
