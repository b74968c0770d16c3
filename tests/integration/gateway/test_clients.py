"""Clients over HTTP: operators make, list and disable them; a key that was taken away opens nothing."""

import asyncio
from functools import partial
from typing import Any

import httpx
import pytest

from services.runtime.postgres import Database
from tests.integration.gateway.conftest import KEY, StartGateway, client_of, is_healthy
from tests.integration.waiting import until_async

NOBODY = "00000000-0000-7000-8000-000000000000"


async def make(gateway: httpx.AsyncClient, name: str, *, is_operator: bool = False) -> dict[str, Any]:
    answer = await gateway.post("/v1/clients", json={"name": name, "isOperator": is_operator})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    made: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/clients/{made['id']}"
    return made


def using(gateway: httpx.AsyncClient, key: str) -> httpx.AsyncClient:
    return client_of(gateway.base_url.port or 0, key)


async def status_with(gateway: httpx.AsyncClient, key: str) -> int:
    async with using(gateway, key) as client:
        return (await client.get("/v1/clients/me")).status_code


async def test_a_client_is_made_with_a_key_that_works_and_is_shown_once(
    gateway: httpx.AsyncClient, database: Database
) -> None:
    made = await make(gateway, "acme")
    key = made.pop("apiKey")
    assert made == {**made, "name": "acme", "isOperator": False, "disabledAt": None}

    async with using(gateway, key) as acme:
        assert (await acme.get("/v1/clients/me")).json() == made
        assert (await acme.get("/v1/jobs")).json()["items"] == []
    assert (await gateway.get(f"/v1/clients/{made['id']}")).json() == made
    assert (await gateway.get("/v1/clients", params={"name": "acme"})).json()["items"] == [made]
    async with database.connection() as connection:
        stored = await connection.fetchval("SELECT string_agg(c::text, ' ') FROM clients c")
    assert key not in stored


async def test_clients_are_listed_by_name_in_pages(gateway: httpx.AsyncClient) -> None:
    for name in ("b", "ü" * 200, "a"):
        await make(gateway, name)
    first = (await gateway.get("/v1/clients", params={"limit": 3})).json()
    rest = (await gateway.get("/v1/clients", params={"limit": 3, "cursor": first["nextCursor"]})).json()
    assert [client["name"] for client in first["items"]] == ["a", "b", "default"]
    assert [client["name"] for client in rest["items"]] == ["ü" * 200]
    assert rest["nextCursor"] is None


async def test_a_name_is_given_once(gateway: httpx.AsyncClient) -> None:
    made = await make(gateway, "acme")
    for _ in range(2):
        taken = await gateway.post("/v1/clients", json={"name": "acme"})
        assert (taken.status_code, taken.json()["errors"][0]["field"]) == (409, "name")
        await gateway.delete(f"/v1/clients/{made['id']}")  # its name stays taken: its jobs are there still


async def test_a_new_key_takes_the_place_of_the_old_one_at_once(gateway: httpx.AsyncClient) -> None:
    made = await make(gateway, "acme")
    assert await status_with(gateway, made["apiKey"]) == 200

    changed = (await gateway.post(f"/v1/clients/{made['id']}/key")).json()
    assert changed["apiKey"] != made["apiKey"]
    assert await status_with(gateway, made["apiKey"]) == 401
    assert await status_with(gateway, changed["apiKey"]) == 200


async def test_a_disabled_clients_key_opens_nothing_and_its_jobs_stay(
    gateway: httpx.AsyncClient, database: Database
) -> None:
    made = await make(gateway, "acme")
    async with using(gateway, made["apiKey"]) as acme:
        job = (await acme.post("/v1/jobs", json={"prompt": "say hello", "kind": "task"})).json()

    disabled = await gateway.delete(f"/v1/clients/{made['id']}")
    assert disabled.status_code == 200
    assert disabled.json()["disabledAt"] is not None
    assert await status_with(gateway, made["apiKey"]) == 401
    assert (await gateway.delete(f"/v1/clients/{made['id']}")).json() == disabled.json()
    refused = await gateway.post(f"/v1/clients/{made['id']}/key")
    assert (refused.status_code, "disabled" in refused.json()["detail"]) == (409, True)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT state FROM jobs WHERE id = $1", job["id"]) == "queued"


async def test_a_key_that_was_taken_away_elsewhere_opens_another_gateway_for_a_moment_only(
    database_url: str, nats_url: str, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.auth.KNOWN_SECONDS", 0.2)
    one, other = await start_gateway(database_url, nats_url), await start_gateway(database_url, nats_url)
    for gateway in (one, other):
        await until_async(partial(is_healthy, gateway))
    made = await make(one, "acme")
    assert await status_with(other, made["apiKey"]) == 200
    await one.delete(f"/v1/clients/{made['id']}")

    async def is_refused() -> bool:
        return await status_with(other, made["apiKey"]) == 401

    await until_async(is_refused)


async def test_the_last_operator_stays_also_where_two_disable_each_other(gateway: httpx.AsyncClient) -> None:
    me = (await gateway.get("/v1/clients/me")).json()
    alone = await gateway.delete(f"/v1/clients/{me['id']}")
    assert (alone.status_code, "last operator" in alone.json()["detail"]) == (409, True)

    second = await make(gateway, "second", is_operator=True)
    async with using(gateway, second["apiKey"]) as operator:
        answers = await asyncio.gather(
            gateway.delete(f"/v1/clients/{second['id']}"), operator.delete(f"/v1/clients/{me['id']}")
        )
        assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 409])
        statuses = [await status_with(gateway, key) for key in (KEY, second["apiKey"])]
    assert sorted(statuses) == [200, 401]


async def test_whoever_is_no_operator_sees_itself_alone(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    mine = (await other_client.get("/v1/clients/me")).json()
    assert (mine["name"], mine["isOperator"]) == ("other", False)
    refused = [
        await other_client.get("/v1/clients"),
        await other_client.get(f"/v1/clients/{mine['id']}"),
        await other_client.get(f"/v1/clients/{NOBODY}"),
        await other_client.post("/v1/clients", json={"name": "x", "isOperator": True}),
        await other_client.post(f"/v1/clients/{mine['id']}/key"),
        await other_client.delete(f"/v1/clients/{mine['id']}"),
    ]
    assert [answer.status_code for answer in refused] == [403] * 6
    assert {answer.json()["detail"].partition(" may")[0] for answer in refused} == {"only an operator's key"}
    names = [client["name"] for client in (await gateway.get("/v1/clients")).json()["items"]]
    assert names == ["default", "other"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "x", "isOperator": "yes"}, "isOperator"),
        ({"name": "x", "apiKey": "mine"}, "apiKey"),
    ],
)
async def test_a_wrong_client_is_refused_by_name(
    shared_gateway: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await shared_gateway.post("/v1/clients", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


async def test_what_is_no_client_is_not_found_and_a_wrong_question_refused(shared_gateway: httpx.AsyncClient) -> None:
    for identifier in (NOBODY, "nobody", "%00"):
        assert (await shared_gateway.get(f"/v1/clients/{identifier}")).status_code == 404
        assert (await shared_gateway.delete(f"/v1/clients/{identifier}")).status_code == 404
        assert (await shared_gateway.post(f"/v1/clients/{identifier}/key")).status_code == 404
    for query in ("limit=0", "cursor=%00", "cursor=AA", "cursor=é", "name=%00", "nmae=x", "name=a&name=b"):
        assert (await shared_gateway.get(f"/v1/clients?{query}")).status_code == 400, query
