"""Repositories of the forge over HTTP: looked for through a vcs node, and taken over once."""

from typing import Any

import grpc
import httpx
import pytest

from services.contracts.v1 import vcs_pb2
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import StartGateway, is_healthy
from tests.integration.gateway.vcs_nodes import TOKEN, Refusal, vcs_node
from tests.integration.waiting import until_async


def found(name: str, **fields: Any) -> vcs_pb2.ForgeRepository:
    return vcs_pb2.ForgeRepository(full_name=name, clone_url=f"https://forge.example/{name}.git", **fields)


GEAR = found("acme/gear", default_branch="main", description="Gears", topics=["metal"], size_kb=7, is_private=True)


@pytest.fixture
async def asking(database_url: str, nats_url: str, start_gateway: StartGateway) -> httpx.AsyncClient:
    client = await start_gateway(database_url, nats_url, vcs_token=TOKEN)
    await until_async(lambda: is_healthy(client))
    return client


async def test_the_forge_is_asked_for_what_was_wanted(asking: httpx.AsyncClient, database: Database) -> None:
    query = "owner=acme&match=acme/*,acme/g*&topic=metal&topic=tools&q=language:go&archived=true&forks=1&limit=2"
    async with vcs_node(database) as plan:
        plan.answers["ListRepositories"] = [GEAR, found("acme/cog"), found("acme/too-many")]
        answer = await asking.get(f"/v1/repositories/discover?{query}")

    (asked,) = plan.requests(vcs_pb2.ListRepositoriesRequest)
    assert isinstance(asked, vcs_pb2.ListRepositoriesRequest)
    assert (asked.owner, asked.search, asked.limit) == ("acme", "language:go", 2)
    assert (sorted(asked.patterns), sorted(asked.topics)) == (["acme/*", "acme/g*"], ["metal", "tools"])
    assert (asked.include_archived, asked.include_forks) == (True, True)
    assert answer.status_code == 200
    first, second = answer.json()["items"]
    assert first == {
        "fullName": "acme/gear",
        "cloneUrl": "https://forge.example/acme/gear.git",
        "defaultBranch": "main",
        "description": "Gears",
        "isPrivate": True,
        "isArchived": False,
        "isFork": False,
        "topics": ["metal"],
        "language": None,
        "sizeKb": 7,
    }
    assert second["description"] is None


async def test_what_was_found_is_taken_over_once(asking: httpx.AsyncClient, database: Database) -> None:
    await asking.post("/v1/repositories", json={"name": "mine", "url": "https://forge.example/acme/cog.git"})
    await asking.post("/v1/repositories", json={"name": "acme/nut", "url": "https://elsewhere.example/nut"})
    async with vcs_node(database) as plan:
        plan.answers["ListRepositories"] = [GEAR, found("acme/cog"), found("acme/nut")]
        first = (await asking.post("/v1/repositories/import", json={"owner": "acme"})).json()
        again = (await asking.post("/v1/repositories/import", json={"owner": "acme"})).json()

    assert [(each["name"], each["url"], each["description"]) for each in first["imported"]] == [
        ("acme/gear", "https://forge.example/acme/gear.git", "Gears")
    ]
    assert (first["skipped"], first["missing"]) == (["acme/cog", "acme/nut"], [])
    assert (again["imported"], again["skipped"]) == ([], ["acme/gear", "acme/cog", "acme/nut"])
    names = [each["name"] for each in (await asking.get("/v1/repositories")).json()["items"]]
    assert names == ["acme/gear", "acme/nut", "mine"]


async def test_names_are_asked_for_by_owner_and_those_that_are_not_there_are_told(
    asking: httpx.AsyncClient, database: Database
) -> None:
    async with vcs_node(database) as plan:
        plan.answers["ListRepositories"] = [GEAR]
        body = {"names": ["acme/Gear", "acme/gone", "beta/x", "acme/gone"]}
        answer = (await asking.post("/v1/repositories/import", json=body)).json()

    requests = [asked for asked in plan.asked if isinstance(asked, vcs_pb2.ListRepositoriesRequest)]
    assert sorted((asked.owner, list(asked.patterns)) for asked in requests) == [
        ("acme", ["acme/Gear", "acme/gone"]),
        ("beta", ["beta/x"]),
    ]
    assert all(asked.include_archived and asked.include_forks for asked in requests)
    assert [each["name"] for each in answer["imported"]] == ["acme/gear"]
    assert answer["missing"] == ["acme/gone", "beta/x"]


async def test_a_client_takes_over_for_itself_alone(
    asking: httpx.AsyncClient, other_client: httpx.AsyncClient, database: Database
) -> None:
    async with vcs_node(database) as plan:
        plan.answers["ListRepositories"] = [GEAR]
        await asking.post("/v1/repositories/import", json={"names": ["acme/gear"]})
    assert (await other_client.get("/v1/repositories")).json()["items"] == []


async def test_a_forge_that_refuses_leaves_nothing_behind(asking: httpx.AsyncClient, database: Database) -> None:
    async with vcs_node(database) as plan:
        plan.answers["ListRepositories"] = [GEAR]
        plan.refusals["ListRepositories"] = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "wait a little", 30)
        for answer in (
            await asking.get("/v1/repositories/discover"),
            await asking.post("/v1/repositories/import", json={"q": "x"}),
            await asking.post("/v1/repositories/import", json={"names": ["acme/gear", "beta/x"]}),
        ):
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
            assert answer.json()["detail"] == "wait a little"
    assert (await asking.get("/v1/repositories")).json()["items"] == []


@pytest.mark.parametrize(
    "query",
    ["owner=-x", "owner=a/b", "topic=Metal", "limit=0", "limit=1001", "archived=perhaps", "q=%00", "q=+", "name=x"],
)
async def test_a_wrong_question_is_refused(shared_gateway: httpx.AsyncClient, query: str) -> None:
    answer = await shared_gateway.get(f"/v1/repositories/discover?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"].partition("[")[0] == query.partition("=")[0]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "names"),
        ({"names": []}, "names"),
        ({"names": ["acme/gear"], "owner": "acme"}, "names"),
        ({"names": ["gear"]}, "names[0]"),
        ({"names": ["acme/*"]}, "names[0]"),
        ({"names": [f"owner-{number}/x" for number in range(11)]}, "names"),
        ({"names": ["a/b"] * 101}, "names"),
        ({"owner": "acme", "limit": "5"}, "limit"),
        ({"owner": "acme", "url": "x"}, "url"),
        ({"match": ["a\0b"]}, "match[0]"),
    ],
)
async def test_a_wrong_import_is_refused_by_name(
    shared_gateway: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await shared_gateway.post("/v1/repositories/import", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
