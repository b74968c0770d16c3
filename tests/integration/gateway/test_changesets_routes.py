"""Changesets over HTTP: published later, and merged, closed and commented through a vcs node, each client its own."""

from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest

from quarterdeck.stack.ports import free_ports
from services.contracts.v1 import vcs_pb2
from services.gateway import vcs_client
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import KEY, StartGateway, client_of, is_healthy
from tests.integration.gateway.vcs_nodes import TOKEN, Refusal, gone_node, silent_node, vcs_node
from tests.integration.waiting import until_async

NOBODY = "00000000-0000-7000-8000-000000000000"
ACTIONS = ("merge", "close", "reopen", "refresh", "comments")
BODIES: dict[str, Any] = {"merge": {}, "close": {}, "comments": {"body": "Looks good."}}


@pytest.fixture
async def asking(database_url: str, nats_url: str, start_gateway: StartGateway) -> httpx.AsyncClient:
    client = await start_gateway(database_url, nats_url, vcs_token=TOKEN)
    await until_async(lambda: is_healthy(client))
    return client


async def delivered(
    client: httpx.AsyncClient, database: Database, state: str = "open", *, body: dict[str, Any] | None = None
) -> str:
    """The id of a changeset of a job that has ended."""
    wanted = body or {"repositories": [{"url": "https://forge.example/team/widget.git"}]}
    job = (await client.post("/v1/jobs", json={"prompt": "x"} | wanted)).json()
    run = (await client.get(f"/v1/jobs/{job['id']}/runs")).json()["items"][0]
    changeset = uuid4()
    is_shown = state in ("open", "merged", "closed")
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE runs SET state = 'completed', outcome = 'stored', finished_at = now() WHERE id = $1", run["id"]
        )
        await connection.execute(
            """UPDATE jobs SET state = 'completed', outcome = 'all', finished_at = now(), started_at = now(),
                               runs_started = 1, runs_completed = 1 WHERE id = $1""",
            job["id"],
        )
        await connection.execute(
            """INSERT INTO changesets (id, run_id, job_id, client_id, repository, branch, base_sha, commit_sha,
                                       commit_author_name, commit_author_email, commit_time, commit_message, patch,
                                       files, insertions, deletions, state, published_at)
               SELECT $1, id, job_id, client_id, coalesce(repository, ''), branch, 'a', 'b', 'n', 'e', now(), 'm',
                      'p', '[]', 1, 1, $3, CASE WHEN $4 THEN now() END
               FROM runs WHERE id = $2""",
            changeset,
            run["id"],
            state,
            is_shown,
        )
    return str(changeset)


async def act(client: httpx.AsyncClient, changeset: str, action: str, **body: Any) -> httpx.Response:
    path = f"/v1/changesets/{changeset}/{action}"
    content = body or BODIES.get(action)
    return await client.post(path, json=content) if content is not None else await client.post(path)


async def test_what_was_stored_is_queued_to_be_published(gateway: httpx.AsyncClient, database: Database) -> None:
    changeset = await delivered(gateway, database, "stored")
    for _ in range(2):  # a second time changes nothing
        answer = await gateway.post(f"/v1/changesets/{changeset}/publish", json={"publish": "draft"})
        assert (answer.status_code, answer.json()["state"], answer.json()["publish"]) == (202, "queued", "draft")
    shown = await delivered(gateway, database, "open")
    refused = await gateway.post(f"/v1/changesets/{shown}/publish", json={})
    assert (refused.status_code, "open" in refused.json()["detail"]) == (409, True)


async def test_what_has_no_repository_is_shown_and_never_published(
    gateway: httpx.AsyncClient, database: Database
) -> None:
    changeset = await delivered(gateway, database, "stored", body={"options": {"publish": "none"}})
    for body in ({}, {"publish": "branch"}):
        refused = await gateway.post(f"/v1/changesets/{changeset}/publish", json=body)
        assert (refused.status_code, "no repository" in refused.json()["detail"]) == (409, True)
    shown = (await gateway.get(f"/v1/changesets/{changeset}")).json()
    assert (shown["state"], shown["repository"]) == ("stored", "")
    run = (await gateway.get(f"/v1/runs/{shown['runId']}")).json()
    assert (run["repository"], run["changeset"]) == (None, shown)
    page = await gateway.get(f"/changesets/{changeset}", auth=("anyone", KEY))
    assert (page.status_code, shown["branch"] in page.text, "Repository" in page.text) == (200, True, False)


async def test_each_action_asks_vcs_and_answers_the_changeset_as_it_is_now(
    asking: httpx.AsyncClient, database: Database
) -> None:
    changeset = await delivered(asking, database)
    async with vcs_node(database) as plan:
        merged = await act(asking, changeset, "merge", method="squash", deleteBranch=True)
        await act(asking, changeset, "close", comment="No longer wanted.")
        await act(asking, changeset, "reopen")
        await act(asking, changeset, "refresh")
        posted = await act(asking, changeset, "comments", body="Why?", inReplyTo="12")

    assert (merged.status_code, merged.json()["id"]) == (200, changeset)
    assert (posted.status_code, posted.json()) == (201, {"id": "7", "url": "https://f/7"})
    assert plan.asked == [
        vcs_pb2.MergeChangesetRequest(changeset_id=changeset, method="squash", delete_branch=True),
        vcs_pb2.CloseChangesetRequest(changeset_id=changeset, comment="No longer wanted."),
        vcs_pb2.ReopenChangesetRequest(changeset_id=changeset),
        vcs_pb2.LookUpChangesetRequest(changeset_id=changeset),
        vcs_pb2.CommentRequest(changeset_id=changeset, body="Why?", in_reply_to="12"),
    ]


@pytest.mark.parametrize("action", [*ACTIONS, "publish"])
async def test_tenants_never_reach_one_anothers(
    asking: httpx.AsyncClient, other_client: httpx.AsyncClient, database: Database, action: str
) -> None:
    changeset = await delivered(asking, database)
    other_key = other_client.headers["Authorization"].removeprefix("Bearer ")
    async with vcs_node(database) as plan, client_of(asking.base_url.port or 0, other_key) as other:
        body = BODIES.get(action, {})
        answers = [
            await other.post(f"/v1/changesets/{changeset}/{action}", json=body),
            await asking.post(f"/v1/changesets/{NOBODY}/{action}", json=body),
            await asking.post(f"/v1/changesets/nothing/{action}", json=body),
        ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert plan.asked == []


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after"),
    [
        (Refusal(grpc.StatusCode.FAILED_PRECONDITION, "not mergeable: checks are failing"), 409, None),
        (Refusal(grpc.StatusCode.NOT_FOUND, "the forge has no such pull request"), 404, None),
        (Refusal(grpc.StatusCode.INVALID_ARGUMENT, "method: cannot be"), 400, None),
        (Refusal(grpc.StatusCode.UNAVAILABLE, "the forge answered 502"), 503, "2"),
        (Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "the forge wants a pause", 61.2), 503, "62"),
        (Refusal(grpc.StatusCode.INTERNAL, "git broke"), 502, None),
    ],
)
async def test_a_forges_refusal_is_told_in_its_words(
    asking: httpx.AsyncClient, database: Database, refusal: Refusal, status: int, retry_after: str | None
) -> None:
    changeset = await delivered(asking, database)
    async with vcs_node(database) as plan:
        plan.refusals["MergeChangeset"] = refusal
        answer = await act(asking, changeset, "merge")
    assert (answer.status_code, refusal.words in answer.json()["detail"]) == (status, True)
    assert answer.headers.get("Retry-After") == retry_after
    assert len(plan.asked) == 1


async def test_another_node_is_asked_where_one_is_away(
    asking: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcs_client, "CONNECT_DEADLINE", vcs_client.CONNECT_DEADLINE / 2)
    monkeypatch.setattr(vcs_client, "_shuffled", lambda nodes: sorted(nodes, key=lambda node: node.name))
    changeset = await delivered(asking, database)
    await gone_node(database, "a-killed", free_ports(1)[0])
    async with (
        silent_node(database, "b-stopped"),
        vcs_node(database, "c-stranger", token="another") as stranger,
        vcs_node(database, "d-well") as well,
    ):
        posted = await act(asking, changeset, "comments")
    assert posted.status_code == 201
    assert (len(stranger.asked), len(well.asked)) == (0, 1)


async def test_only_what_may_be_done_twice_is_asked_of_another_node(
    asking: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcs_client, "_shuffled", lambda nodes: sorted(nodes, key=lambda node: node.name))
    changeset = await delivered(asking, database)
    went_away = Refusal(grpc.StatusCode.UNAVAILABLE, "socket closed", retry_after_seconds=None)
    async with vcs_node(database, "a-ending") as ending, vcs_node(database, "b-well") as well:
        ending.refusals |= {"Comment": went_away, "LookUpChangeset": went_away}
        commented = await act(asking, changeset, "comments")
        looked_up = await act(asking, changeset, "refresh")
    assert (commented.status_code, "not known" in commented.json()["detail"]) == (503, True)
    assert "socket" not in commented.text
    assert looked_up.status_code == 200
    assert well.asked == [vcs_pb2.LookUpChangesetRequest(changeset_id=changeset)]


async def test_a_node_that_hangs_is_left_at_the_deadline(
    asking: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcs_client, "CALL_DEADLINE", vcs_client.CALL_DEADLINE / 25)
    changeset = await delivered(asking, database)
    async with vcs_node(database) as plan:
        plan.hangs.add("MergeChangeset")
        answer = await act(asking, changeset, "merge")
    assert (answer.status_code, "in time" in answer.json()["detail"]) == (503, True)
    assert len(plan.asked) == 1


async def test_a_wrong_token_or_none_is_told_to_who_runs_the_server(
    asking: httpx.AsyncClient, gateway: httpx.AsyncClient, database: Database
) -> None:
    changeset = await delivered(asking, database)
    async with vcs_node(database, token="another") as plan:
        refused = await act(asking, changeset, "refresh")
        untold = await act(gateway, changeset, "refresh")
    for answer in (refused, untold):
        assert (answer.status_code, "QUARTERDECK_VCS_TOKEN" in answer.json()["detail"]) == (503, True)
        assert "Retry-After" in answer.headers
    assert plan.asked == []


@pytest.mark.parametrize("state", ["stored", "queued", "failed"])
async def test_what_no_forge_shows_is_not_asked_about(
    asking: httpx.AsyncClient, database: Database, state: str
) -> None:
    changeset = await delivered(asking, database, state)
    async with vcs_node(database) as plan:
        answers = [await act(asking, changeset, action) for action in ACTIONS]
    assert [answer.status_code for answer in answers] == [409] * len(ACTIONS)
    assert plan.asked == []


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [
        ("publish", {"publish": "none"}, "publish"),
        ("publish", {"publish": 5}, "publish"),
        ("publish", {"draft": True}, "draft"),
        ("merge", {"method": "force"}, "method"),
        ("merge", {"deleteBranch": "yes"}, "deleteBranch"),
        ("close", {"comment": " "}, "comment"),
        ("close", {"comment": "a\0b"}, "comment"),
        ("comments", {}, "body"),
        ("comments", {"body": "x" * 65_001}, "body"),
        ("comments", {"body": "x", "inReplyTo": "1 or 2"}, "inReplyTo"),
    ],
)
async def test_a_wrong_request_is_refused_by_name(
    shared_gateway: httpx.AsyncClient, action: str, body: dict[str, Any], field: str
) -> None:
    answer = await shared_gateway.post(f"/v1/changesets/{NOBODY}/{action}", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
