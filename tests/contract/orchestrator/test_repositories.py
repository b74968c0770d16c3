"""Clients and their repositories: kept once each, shared names, clone addresses; and their mirrors on vcs nodes."""

from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest

from services.contracts.v1 import vcs_pb2
from tests.contract.orchestrator import document
from tests.contract.orchestrator.conftest import Kept, Orchestrator, answered
from tests.integration.gateway.conftest import client_of
from tests.integration.gateway.vcs_nodes import Refusal, vcs_node

MIRROR = "/srv/repos/mirrors/one-0123.git"
DONE = vcs_pb2.SyncUpdate(done=vcs_pb2.SyncDone(node="vcs-1", default_branch="main", path=MIRROR))


async def test_a_client_keeps_the_id_that_it_comes_with(orchestrator: Orchestrator) -> None:
    body = {"name": f"Moved {uuid4()}", "id": str(uuid4())}
    made = await answered(orchestrator.api.post("/clients", json=body), 201)
    assert (made["id"], made["name"]) == (body["id"], body["name"])
    again = await answered(orchestrator.api.post("/clients", json=body | {"name": "Another"}), 400)
    assert again["error"].startswith("id:")
    other = await answered(orchestrator.api.post("/clients", json={"name": body["name"]}), 400)
    assert body["name"] in other["error"]


async def test_a_client_has_a_repository_once(orchestrator: Orchestrator, kept: Kept) -> None:
    owner, _, name = kept.full_name.partition("/")
    for spelt in (name, name.upper()):
        body = {"githubOrg": owner, "githubRepo": spelt}
        answer = await answered(orchestrator.api.post(f"/clients/{kept.id}/repository", json=body), 400)
        assert answer["error"].startswith("githubRepo:")


async def test_two_clients_may_have_the_same_repository(orchestrator: Orchestrator, kept: Kept) -> None:
    second = await orchestrator.client(full_name=kept.full_name)
    for each in (kept, second):
        client = await answered(orchestrator.api.get(f"/clients/{each.id}"), 200)
        shown = client["repository"]
        assert (shown["id"], f"{shown['owner_name']}/{shown['repo_name']}") == (each.repository, kept.full_name)
    owner, _, name = kept.full_name.partition("/")
    body = {"githubOrg": owner, "githubRepo": name, "prompt": "Do it", "branchName": "x"}
    created = await answered(orchestrator.api.post("/jobs", json=body), 201)
    assert (await orchestrator.shown(created["id"]))["client"]["id"] == kept.id


async def test_v1_shows_the_repositories_too(orchestrator: Orchestrator, kept: Kept) -> None:
    native = orchestrator.served.native
    second = await orchestrator.client(full_name=kept.full_name)
    (tenant,) = (await answered(native.get("/v1/clients", params={"name": "orchestrator"}), 200))["items"]
    key = (await answered(native.post(f"/v1/clients/{tenant['id']}/key"), 200))["apiKey"]
    async with client_of(native.base_url.port or 0, key) as own:
        query = {"name": f"{kept.full_name}*"}
        found = (await answered(own.get("/v1/repositories", params=query), 200))["items"]
    url = f"https://github.com/{kept.full_name}.git"
    assert [(each["name"], each["url"]) for each in found] == [
        (kept.full_name, url),
        (f"{kept.full_name} ({second.id})", url),
    ]


@pytest.mark.parametrize("url", ["/srv/git/one.git", "git@forge.example:acme/one.git", "https://forge.example/one"])
async def test_a_repository_elsewhere(orchestrator: Orchestrator, kept: Kept, url: str) -> None:
    body = document.ADD_REPOSITORY | {"cloneUrl": url}
    made = await answered(orchestrator.api.post(f"/clients/{kept.id}/repository", json=body), 201)
    assert (made["clone_url"], made["owner_name"], made["repo_name"]) == (url, "owner-name", "repo-name")


@pytest.mark.parametrize("url", ["https://user:token@forge.example/one", "ftp://forge.example/one", "-x"])
async def test_an_address_that_is_refused(orchestrator: Orchestrator, kept: Kept, url: str) -> None:
    body = document.ADD_REPOSITORY | {"cloneUrl": url}
    answer = await answered(orchestrator.api.post(f"/clients/{kept.id}/repository", json=body), 400)
    assert answer["error"].startswith("cloneUrl:")
    assert "token@" not in answer["error"]


async def test_cloning_one(orchestrator: Orchestrator, kept: Kept) -> None:
    async with vcs_node(orchestrator.database) as plan:
        plan.answers["Clone"] = [DONE]
        cloned = await answered(orchestrator.api.post(f"/repos/{kept.repository}/clone"), 200)
        (asked,) = plan.requests(vcs_pb2.CloneRequest)
    await forget_nodes(orchestrator)
    assert isinstance(asked, vcs_pb2.CloneRequest)
    assert asked.repository == f"https://github.com/{kept.full_name}.git"
    assert (cloned["success"], cloned["repo"]) == (True, kept.full_name)
    assert cloned["path"] == MIRROR
    assert set(cloned) == {"success", "repo", "path"}


async def test_a_clone_that_fails(orchestrator: Orchestrator, kept: Kept) -> None:
    async with vcs_node(orchestrator.database) as plan:
        plan.refusals["Clone"] = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "authentication failed")
        cloned = await answered(orchestrator.api.post(f"/repos/{kept.repository}/clone"), 200)
    await forget_nodes(orchestrator)
    assert (cloned["success"], cloned["path"]) == (False, None)
    assert "authentication failed" in cloned["error"]


@pytest.mark.parametrize(
    ("path", "method", "field"), [("/sync", "Sync", "synced"), ("/repos/clone", "Clone", "cloned")]
)
async def test_all_of_them(orchestrator: Orchestrator, kept: Kept, path: str, method: str, field: str) -> None:
    async with vcs_node(orchestrator.database) as plan:
        plan.answers[method] = [DONE]
        body = await answered(orchestrator.api.post(path), 200)
    await forget_nodes(orchestrator)
    assert list(body) == [field]
    (found,) = [each for each in body[field] if each["repo"] == kept.full_name]
    assert found["success"] is True
    assert ("path" in found) == (path == "/repos/clone")
    assert len(body[field]) == len({each["id"] for each in await repositories(orchestrator.api)})


async def test_what_is_not_cloned_is_not_synced(orchestrator: Orchestrator, kept: Kept) -> None:
    async with vcs_node(orchestrator.database) as plan:
        plan.refusals["Sync"] = Refusal(grpc.StatusCode.NOT_FOUND, "no mirror")
        body = await answered(orchestrator.api.post("/sync"), 200)
    await forget_nodes(orchestrator)
    (found,) = [each for each in body["synced"] if each["repo"] == kept.full_name]
    assert found == {"repo": kept.full_name, "success": False, "error": "not cloned yet: clone it first"}


async def test_without_a_vcs_node(orchestrator: Orchestrator, kept: Kept) -> None:
    cloned = await answered(orchestrator.api.post(f"/repos/{kept.repository}/clone"), 200)
    assert (cloned["success"], cloned["path"]) == (False, None)
    assert "vcs" in cloned["error"]


async def repositories(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    clients = (await answered(api.get("/clients"), 200))["clients"]
    return [repository for client in clients for repository in client["repositories"]]


async def forget_nodes(orchestrator: Orchestrator) -> None:
    async with orchestrator.database.connection() as connection:
        await connection.execute("DELETE FROM nodes WHERE kind = 'vcs'")
