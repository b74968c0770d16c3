"""Repositories over HTTP: kept by name, each client its own; their mirrors looked at and fetched on every node."""

from contextlib import AsyncExitStack
from typing import Any

import grpc
import httpx
import pytest

from quarterdeck.stack.ports import free_ports
from services.contracts.v1 import vcs_pb2
from services.gateway import vcs_client
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import StartGateway, is_healthy
from tests.integration.gateway.vcs_nodes import TOKEN, Refusal, gone_node, silent_node, vcs_node
from tests.integration.waiting import until_async

NOBODY = "00000000-0000-7000-8000-000000000000"
WIDGET = {"name": "widget", "url": "https://forge.example/team/widget.git"}
DONE = vcs_pb2.SyncUpdate(done=vcs_pb2.SyncDone(node="x", default_branch="main", head_sha="a" * 40, bytes=512))
HALF = vcs_pb2.SyncUpdate(progress=vcs_pb2.PrepareProgress(phase="Receiving objects", percent=50))


@pytest.fixture
async def asking(database_url: str, nats_url: str, start_gateway: StartGateway) -> httpx.AsyncClient:
    """A gateway that knows the vcs nodes' token, and does not wait for long."""
    client = await start_gateway(database_url, nats_url, vcs_token=TOKEN, sync_wait_seconds=5)
    await until_async(lambda: is_healthy(client))
    return client


async def keep(gateway: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await gateway.post("/v1/repositories", json=WIDGET | changes)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/repositories/{made['id']}"
    return made


async def test_a_repository_is_kept_changed_and_forgotten(gateway: httpx.AsyncClient) -> None:
    made = await keep(gateway, baseRef="main", description="Gears and such")
    assert made == {**made, **WIDGET, "baseRef": "main", "description": "Gears and such"}
    path = f"/v1/repositories/{made['id']}"

    changed = (await gateway.patch(path, json={"baseRef": None, "url": "git@forge.example:team/widget.git"})).json()
    assert (changed["baseRef"], changed["url"]) == (None, "git@forge.example:team/widget.git")
    assert (changed["name"], changed["description"]) == ("widget", "Gears and such")
    assert (await gateway.patch(path, json={})).json()["url"] == changed["url"]

    read = (await gateway.get(path)).json()
    assert (read["name"], read["mirrors"], "QUARTERDECK_VCS_TOKEN" in read["mirrorsError"]) == ("widget", [], True)
    assert (await gateway.delete(path)).json()["name"] == "widget"
    assert (await gateway.get(path)).status_code == 404
    await keep(gateway)  # the name is free again


async def test_a_name_that_is_taken_is_refused_by_its_field(gateway: httpx.AsyncClient) -> None:
    await keep(gateway)
    other = await keep(gateway, name="other")
    again = await gateway.post("/v1/repositories", json=WIDGET)
    renamed = await gateway.patch(f"/v1/repositories/{other['id']}", json={"name": "widget"})
    for refused in (again, renamed):
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (409, "name")
        assert "'widget'" in refused.json()["detail"]


async def test_repositories_are_listed_by_name_and_filtered(gateway: httpx.AsyncClient) -> None:
    for name in ("acme/gear", "acme/a_b", "other", "acme/axb"):
        await keep(gateway, name=name)

    async def names(**query: Any) -> list[str]:
        return [each["name"] for each in (await gateway.get("/v1/repositories", params=query)).json()["items"]]

    assert await names() == ["acme/a_b", "acme/axb", "acme/gear", "other"]
    assert await names(name="acme/*") == ["acme/a_b", "acme/axb", "acme/gear"]
    assert await names(name="acme/a_b") == ["acme/a_b"]
    assert await names(name="acme") == []
    first = (await gateway.get("/v1/repositories", params={"limit": 3})).json()
    assert await names(cursor=first["nextCursor"]) == ["other"]


async def test_tenants_never_see_one_anothers(gateway: httpx.AsyncClient, other_client: httpx.AsyncClient) -> None:
    mine = await keep(gateway)
    path = f"/v1/repositories/{mine['id']}"
    theirs = await keep(other_client)  # the same name, of another client

    assert [each["id"] for each in (await other_client.get("/v1/repositories")).json()["items"]] == [theirs["id"]]
    assert (await other_client.get(path)).status_code == 404
    assert (await other_client.patch(path, json={"name": "stolen"})).status_code == 404
    assert (await other_client.post(f"{path}/sync")).status_code == 404
    assert (await other_client.post(f"{path}/clone")).status_code == 404
    assert (await other_client.delete(path)).status_code == 404
    assert (await gateway.get(path)).json()["name"] == "widget"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"url": "https://x.example/y"}, 400, "name"),
        ({"name": "x"}, 400, "url"),
        (WIDGET | {"name": " "}, 400, "name"),
        (WIDGET | {"name": "a\0b"}, 400, "name"),
        (WIDGET | {"name": "x" * 201}, 400, "name"),
        (WIDGET | {"url": 5}, 400, "url"),
        (WIDGET | {"url": "https://x.example/" + "y" * 2_000}, 400, "url"),
        (WIDGET | {"baseRef": "--upload-pack=x"}, 400, "baseRef"),
        (WIDGET | {"description": "x" * 2_001}, 400, "description"),
        (WIDGET | {"clientId": NOBODY}, 400, "clientId"),
        (WIDGET | {"url": "https://someone:s3cret@x.example/y"}, 422, "url"),
        (WIDGET | {"url": "https://s3cret@x.example/y"}, 422, "url"),
        (WIDGET | {"url": "ssh://git:s3cret@x.example/y"}, 422, "url"),
        (WIDGET | {"url": "someone:s3cret@x.example/y"}, 422, "url"),
        (WIDGET | {"url": "ext::sh -c s3cret"}, 422, "url"),
        (WIDGET | {"url": "--upload-pack=s3cret"}, 422, "url"),
        (WIDGET | {"url": "https://x.example/y?token=s3cret"}, 422, "url"),
        (WIDGET | {"url": "https://[s3cret"}, 422, "url"),
    ],
)
async def test_a_wrong_repository_is_refused_by_name_and_no_secret_repeated(
    shared_gateway: httpx.AsyncClient, body: dict[str, Any], status: int, field: str
) -> None:
    answer = await shared_gateway.post("/v1/repositories", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (status, field)
    assert "s3cret" not in answer.text
    assert (await shared_gateway.get("/v1/repositories")).json()["items"] == []


async def test_a_wrong_change_or_question_is_refused(shared_gateway: httpx.AsyncClient) -> None:
    path = f"/v1/repositories/{NOBODY}"
    for wrong, status in (
        ({"name": None}, 400),
        ({"url": None}, 400),
        ({"nmae": "x"}, 400),
        ({"url": "https://a:b@x.example/y"}, 422),
        ({}, 404),
    ):
        assert (await shared_gateway.patch(path, json=wrong)).status_code == status, wrong
    for query in ("limit=201", "cursor=%00", "cursor=====", "name=", "nam=x"):
        assert (await shared_gateway.get(f"/v1/repositories?{query}")).status_code == 400, query
    for action in ("sync", "clone"):
        assert (await shared_gateway.post(f"{path}/{action}")).status_code == 404


async def test_each_node_says_what_its_mirror_is_and_no_clients_work_is_told_to_another(
    asking: httpx.AsyncClient, database: Database
) -> None:
    made = await keep(asking)
    run = (await asking.post("/v1/jobs", json={"prompt": "x", "kind": "task"})).json()["id"]
    run = (await asking.get(f"/v1/jobs/{run}/runs")).json()["items"][0]["id"]
    rescued = [
        vcs_pb2.RescuedWork(ref=f"refs/quarterdeck/rescue/{each}", run_id=each, commit_sha="c" * 40, time=1_700_000_000)
        for each in (run, NOBODY, "")
    ]
    usage = vcs_pb2.MirrorUsage(
        repository="forge.example/team/widget",
        bytes=4_096,
        used_at=1_700_000_000,
        worktrees=2,
        rescued=rescued,
    )
    async with AsyncExitStack() as nodes:
        there = await nodes.enter_async_context(vcs_node(database, "vcs-1"))
        there.answers["JanitorStatus"] = [vcs_pb2.JanitorStatusReply(node="vcs-1", mirrors=[usage])]
        await nodes.enter_async_context(vcs_node(database, "vcs-2"))
        await nodes.enter_async_context(vcs_node(database, "vcs-3", token="another"))
        await gone_node(database, "vcs-4", free_ports(1)[0])
        read = (await asking.get(f"/v1/repositories/{made['id']}")).json()

    assert read["mirrorsError"] is None
    by_node = {mirror["node"]: mirror for mirror in read["mirrors"]}
    assert {name: mirror["state"] for name, mirror in by_node.items()} == {
        "vcs-1": "present",
        "vcs-2": "absent",
        "vcs-3": "unknown",
        "vcs-4": "unknown",
    }
    mirror = by_node["vcs-1"]
    assert (mirror["bytes"], mirror["worktrees"], mirror["fetchedAt"]) == (4_096, 2, None)
    assert mirror["usedAt"] == "2023-11-14T22:13:20Z"
    assert [work["runId"] for work in mirror["rescued"]] == [run]
    assert "QUARTERDECK_VCS_TOKEN" in by_node["vcs-3"]["error"]
    assert "does not answer" in by_node["vcs-4"]["error"]
    assert there.requests(vcs_pb2.JanitorStatusRequest) == [vcs_pb2.JanitorStatusRequest(repository=WIDGET["url"])]


async def test_sync_goes_to_every_node_and_tells_what_each_came_to(
    asking: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await keep(asking)
    async with AsyncExitStack() as nodes:
        plans = {
            name: await nodes.enter_async_context(vcs_node(database, name))
            for name in ("absent", "broken", "done", "odd", "slow")
        }
        plans["done"].answers["Sync"] = [HALF, DONE]
        plans["absent"].refusals["Sync"] = Refusal(grpc.StatusCode.NOT_FOUND, "this node has no mirror of it")
        plans["broken"].refusals["Sync"] = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "remote: no such repository")
        plans["odd"].answers["Sync"] = [HALF]
        plans["slow"].answers["Sync"], plans["slow"].hangs = [HALF], {"Sync"}
        answer = await asking.post(f"/v1/repositories/{made['id']}/sync")

    assert answer.status_code == 202
    by_node = {node.pop("node"): node for node in answer.json()["nodes"]}
    nothing = dict.fromkeys(("phase", "percent", "defaultBranch", "headSha", "bytes", "error"))
    assert by_node == {
        "absent": {**nothing, "state": "absent"},
        "broken": {**nothing, "state": "failed", "error": "remote: no such repository"},
        "done": {
            "state": "done",
            "phase": "Receiving objects",
            "percent": 100,
            "defaultBranch": "main",
            "headSha": "a" * 40,
            "bytes": 512,
            "error": None,
        },
        "odd": {**nothing, "state": "failed", "error": "the vcs node did not tell how it ended"},
        "slow": {**nothing, "state": "running", "phase": "Receiving objects", "percent": 50},
    }


async def test_clone_goes_to_every_node_and_one_that_is_away_is_named(
    asking: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcs_client, "CONNECT_DEADLINE", vcs_client.CONNECT_DEADLINE / 2)
    made = await keep(asking)
    async with AsyncExitStack() as nodes:
        plan = await nodes.enter_async_context(vcs_node(database, "done"))
        plan.answers["Clone"] = [DONE]
        await nodes.enter_async_context(silent_node(database, "stopped"))
        await gone_node(database, "killed", free_ports(1)[0])
        answer = await asking.post(f"/v1/repositories/{made['id']}/clone")

    assert answer.status_code == 200
    assert {node["node"]: node["state"] for node in answer.json()["nodes"]} == {
        "done": "done",
        "stopped": "failed",
        "killed": "failed",
    }
    assert plan.asked == [vcs_pb2.CloneRequest(repository=WIDGET["url"])]


async def test_without_nodes_or_a_token_the_words_say_what_is_missing(
    asking: httpx.AsyncClient, gateway: httpx.AsyncClient
) -> None:
    made = await keep(asking)
    no_node = await asking.post(f"/v1/repositories/{made['id']}/sync")
    assert (no_node.status_code, "no vcs node lives" in no_node.json()["detail"]) == (503, True)
    assert int(no_node.headers["Retry-After"]) > 0
    assert "no vcs node lives" in (await asking.get(f"/v1/repositories/{made['id']}")).json()["mirrorsError"]
    no_token = await gateway.post(f"/v1/repositories/{made['id']}/clone")
    assert (no_token.status_code, "QUARTERDECK_VCS_TOKEN" in no_token.json()["detail"]) == (503, True)
