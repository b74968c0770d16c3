"""Over HTTP: limits are read and replaced, an ended job is done again, a conversation is spoken to and ended."""

import httpx
import pytest

from services.runtime.postgres import Database
from tests.integration.gateway.conftest import Scheduler

CODE = {"prompt": "change it", "repositories": [{"url": "https://a.invalid/b.git"}], "name": "n", "priority": 3}
TASK = {"prompt": "say hello", "kind": "task"}


async def test_limits_are_what_was_put(gateway: httpx.AsyncClient) -> None:
    nothing = (await gateway.get("/v1/limits")).json()
    wanted = {
        "fleet": 7,
        "queues": {"code": 5, "task": None, "review": 0},
        "client": {"default": 3, "byName": {"default": 4}},
        "repository": {"default": None, "byName": {"https://a.invalid/b.git": 1}},
        "queuedJobs": {"default": 100, "byName": {}},
    }
    try:
        answer = await gateway.put("/v1/limits", json=wanted)

        assert (answer.status_code, answer.json()) == (200, wanted)
        assert (await gateway.get("/v1/limits")).json() == wanted
    finally:
        assert (await gateway.put("/v1/limits", json=nothing)).json() == nothing


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"fleet": -1}, "fleet"),
        ({"fleet": "7"}, "fleet"),
        ({"queues": {"publish": 1}}, "queues"),
        ({"client": {"byName": {"nobody of this name": 1}}}, "nobody of this name"),
        ({"clients": {}}, "clients"),
    ],
)
async def test_a_wrong_limit_is_named_and_changes_nothing(
    gateway: httpx.AsyncClient, wrong: dict[str, object], field: str
) -> None:
    before = (await gateway.get("/v1/limits")).json()
    answer = await gateway.put("/v1/limits", json=wrong)

    assert answer.status_code == 400
    assert field in answer.text
    assert (await gateway.get("/v1/limits")).json() == before


async def test_only_an_operator_changes_limits_and_sees_others(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    await gateway.put("/v1/limits", json={"client": {"byName": {"default": 4, "other": 2}}})
    try:
        refused = await other_client.put("/v1/limits", json={"fleet": 1})
        assert (refused.status_code, "operator" in refused.json()["detail"]) == (403, True)
        assert (await other_client.get("/v1/limits")).json()["client"] == {"default": None, "byName": {"other": 2}}
    finally:
        await gateway.put("/v1/limits", json={})


async def test_a_client_has_no_more_jobs_queued_than_it_may(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    await gateway.put("/v1/limits", json={"queuedJobs": {"byName": {"other": 2}}})
    try:
        answers = [await other_client.post("/v1/jobs", json=TASK) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert "Retry-After" in answers[2].headers
        keyed = await other_client.post("/v1/jobs", json=TASK, headers={"Idempotency-Key": "later"})
        assert keyed.status_code == 429
        assert (await gateway.post("/v1/jobs", json=TASK)).status_code == 201
    finally:
        await gateway.put("/v1/limits", json={})
    # The key stands for no job yet: it is as good as new.
    assert (await other_client.post("/v1/jobs", json=TASK, headers={"Idempotency-Key": "later"})).status_code == 201


async def test_an_ended_job_is_done_again(gateway: httpx.AsyncClient, scheduler: Scheduler, database: Database) -> None:
    old = (await gateway.post("/v1/jobs", json=CODE)).json()
    early = await gateway.post(f"/v1/jobs/{old['id']}/retry", json={})
    assert (early.status_code, "has not ended" in early.json()["detail"]) == (409, True)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE runs SET state = 'cancelled', finished_at = now() WHERE job_id::text = $1", old["id"]
        )
        await connection.execute(
            "UPDATE jobs SET state = 'cancelled', finished_at = now(), runs_cancelled = 1, cancel_requested_at = now() "
            "WHERE id::text = $1",
            old["id"],
        )

    answers = [
        await gateway.post(f"/v1/jobs/{old['id']}/retry", json={"only": "failed"}, headers={"Idempotency-Key": "again"})
        for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [201, 200]
    new = answers[0].json()
    assert answers[1].json()["id"] == new["id"]
    assert (new["retryOf"], new["state"], new["prompt"], new["priority"]) == (old["id"], "queued", "change it", 3)
    assert (await gateway.get(f"/v1/jobs/{new['id']}")).json() == new
    assert (await gateway.get(f"/v1/jobs/{old['id']}")).json()["state"] == "cancelled"


async def test_a_retry_that_makes_no_sense_is_refused(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    job = (await gateway.post("/v1/jobs", json=CODE)).json()
    path = f"/v1/jobs/{job['id']}/retry"

    assert (await gateway.post(path, json={"only": "some"})).status_code == 400
    assert (await gateway.post(path, json={"resume": "yes"})).status_code == 400
    assert (await other_client.post(path, json={})).status_code == 404


async def test_a_conversation_is_spoken_to_and_ended(gateway: httpx.AsyncClient) -> None:
    job = (await gateway.post("/v1/jobs", json=TASK)).json()
    (run,) = (await gateway.get(f"/v1/jobs/{job['id']}/runs")).json()["items"]

    said = await gateway.post(f"/v1/jobs/{job['id']}/messages", json={"text": "and louder", "interrupt": True})
    again = await gateway.post(f"/v1/jobs/{job['id']}/messages", json={"text": "please", "runId": run["id"]})
    ended = await gateway.post(f"/v1/jobs/{job['id']}/complete", json={})

    assert (said.status_code, again.status_code, ended.status_code) == (201, 201, 202)
    first = said.json()
    assert (first["runId"], first["number"], first["text"], first["interrupt"]) == (run["id"], 1, "and louder", True)
    assert again.json()["number"] == 2


async def test_a_message_that_nobody_can_hear_is_refused(
    gateway: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    code = (await gateway.post("/v1/jobs", json=CODE)).json()
    path = f"/v1/jobs/{code['id']}/messages"

    assert (await gateway.post(path, json={"text": "hello"})).status_code == 409
    assert (await gateway.post(path, json={"text": " "})).status_code == 400
    assert (await other_client.post(path, json={"text": "hello"})).status_code == 404
