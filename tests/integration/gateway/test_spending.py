"""Over HTTP: budgets are read and replaced, and a client reads what it has used."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from services.runtime.postgres import Database

NOTHING: dict[str, Any] = {
    "day": None,
    "client": {"default": None, "byName": {}},
    "clientDay": {"default": None, "byName": {}},
}
WANTED: dict[str, Any] = {
    "day": {"usd": 100.0, "tokens": None},
    "client": {"default": {"usd": None, "tokens": 10_000_000}, "byName": {"default": {"usd": None, "tokens": None}}},
    "clientDay": {"default": None, "byName": {"default": {"usd": 2.5, "tokens": 1_000}}},
}


def today() -> date:
    return datetime.now(UTC).date()


async def spend(database: Database, client: str, day: date, tokens: int, microusd: int) -> None:
    statement = "INSERT INTO spending SELECT id, $2, $3, $4 FROM clients WHERE name = $1"
    async with database.connection() as connection:
        await connection.execute(statement, client, day, tokens, microusd)


async def test_budgets_are_what_was_put(gateway: httpx.AsyncClient) -> None:
    assert (await gateway.get("/v1/budgets")).json() == NOTHING

    answer = await gateway.put("/v1/budgets", json=WANTED)
    assert (answer.status_code, answer.json()) == (200, WANTED)
    assert (await gateway.get("/v1/budgets")).json() == WANTED
    assert (await gateway.put("/v1/budgets", json={})).json() == NOTHING


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"day": {"usd": -1}}, "day.usd"),
        ({"day": {"usd": "7"}}, "day.usd"),
        ({"day": {"tokens": 1.5}}, "day.tokens"),
        ({"day": {"eur": 1}}, "day.eur"),
        ({"client": {"byName": {"nobody of this name": {"usd": 1}}}}, "nobody of this name"),
        ({"fleet": {}}, "fleet"),
    ],
)
async def test_a_wrong_budget_is_named_and_changes_nothing(
    gateway: httpx.AsyncClient, wrong: dict[str, object], field: str
) -> None:
    await gateway.put("/v1/budgets", json=WANTED)
    answer = await gateway.put("/v1/budgets", json=wrong)

    assert answer.status_code == 400
    assert field in answer.text
    assert (await gateway.get("/v1/budgets")).json() == WANTED


async def test_only_an_operator_changes_budgets_and_sees_others(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    await gateway.put("/v1/budgets", json={**WANTED, "client": {"byName": {"other": {"usd": 2.0}}}})

    refused = await other_client.put("/v1/budgets", json={})
    assert (refused.status_code, "operator" in refused.json()["detail"]) == (403, True)
    seen = (await other_client.get("/v1/budgets")).json()
    assert seen["day"] == WANTED["day"]
    assert seen["client"]["byName"] == {"other": {"usd": 2.0, "tokens": None}}
    assert seen["clientDay"]["byName"] == {}


async def test_a_client_reads_its_usage_by_day_and_an_operator_anybodys(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient, database: Database
) -> None:
    await gateway.put("/v1/budgets", json={"day": {"usd": 10, "tokens": 5_000}})
    await spend(database, "default", today(), 4_000, 1_250_000)
    await spend(database, "default", today() - timedelta(days=3), 7, 1)
    await spend(database, "other", today(), 500, 250_000)

    mine = (await gateway.get("/v1/usage")).json()
    assert mine["client"] == "default"
    assert mine["days"] == [
        {"day": str(today() - timedelta(days=3)), "tokens": 7, "usd": 0.000001},
        {"day": str(today()), "tokens": 4_000, "usd": 1.25},
    ]
    assert mine["total"] == {"tokens": 4_007, "usd": 1.250001}
    assert mine["leftToday"] == {"tokens": 500, "usd": 8.5}

    theirs = (await other_client.get("/v1/usage")).json()
    asked = (await gateway.get("/v1/usage", params={"client": "other"})).json()
    assert theirs == asked
    assert theirs["total"] == {"tokens": 500, "usd": 0.25}
    earlier = {"from": str(today() - timedelta(days=9)), "to": str(today() - timedelta(days=1))}
    assert (await gateway.get("/v1/usage", params=earlier)).json()["total"]["tokens"] == 7


async def test_a_usage_that_cannot_be_told_is_refused(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    refused = await other_client.get("/v1/usage", params={"client": "default"})
    assert (refused.status_code, "operator" in refused.json()["detail"]) == (403, True)
    nobody = await gateway.get("/v1/usage", params={"client": "nobody"})
    assert (nobody.status_code, "nobody" in nobody.json()["detail"]) == (400, True)
    for wrong in ("2026-1-1", "1", "2026-01-31T00:00:00Z", "2026-02-30", "9999-12-31", "0001-01-01"):
        answer = await gateway.get("/v1/usage", params={"from": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "from"), wrong
    reversed_days = await gateway.get("/v1/usage", params={"from": "2026-02-02", "to": "2026-02-01"})
    assert reversed_days.json()["errors"] == [{"field": "from", "message": "must not be after `to`"}]
    unknown = await gateway.get("/v1/usage", params={"firstDay": "2026-02-02"})
    assert "known are: client, from, to" in unknown.json()["detail"]


async def test_a_runs_cost_is_told(gateway: httpx.AsyncClient, database: Database) -> None:
    job = (await gateway.post("/v1/jobs", json={"prompt": "say hello", "kind": "task"})).json()
    async with database.connection() as connection:
        await connection.execute("UPDATE runs SET cost_microusd = 1250001, unpriced_turns = 2, turns = 3")

    (run,) = (await gateway.get(f"/v1/jobs/{job['id']}/runs")).json()["items"]
    assert (run["usage"]["costUsd"], run["usage"]["unpricedTurns"], run["usage"]["turns"]) == (1.250001, 2, 3)
