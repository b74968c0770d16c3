"""Submitting: what is wrong is refused by name and leaves nothing behind; what is right is accepted exactly once."""

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest

from services.contracts.rest import MAX_PROMPT_CHARACTERS
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import Scheduler

TASK = {"prompt": "say hello", "kind": "task"}
REPOSITORY = {"url": "https://forge.example/team/widget.git"}

WRONG_FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no prompt": ({"kind": "task"}, "prompt", "is required"),
    "empty prompt": ({**TASK, "prompt": ""}, "prompt", "must not be empty"),
    "blank prompt": ({**TASK, "prompt": " \n"}, "prompt", "must not be blank"),
    "long prompt": ({**TASK, "prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)}, "prompt", "100000 characters"),
    "wrong type": ({**TASK, "prompt": 5}, "prompt", "must be a string"),
    "NUL": ({**TASK, "prompt": "a\0b"}, "prompt", "NUL"),
    "lone surrogate": ({**TASK, "prompt": "a\ud800b"}, "prompt", "lone surrogates"),
    "low surrogate": ({**TASK, "name": "\udc00"}, "name", "lone surrogates"),
    "surrogate deep inside": (
        {"prompt": "x", "repositories": [REPOSITORY, {"url": "\ud83d"}]},
        "repositories[1].url",
        "lone surrogates",
    ),
    "unknown field": ({**TASK, "promt": "x"}, "promt", "not a known field"),
    "unknown field within": ({**TASK, "options": {"maxturns": 1}}, "options.maxturns", "not a known field"),
    "snake case": ({**TASK, "not_before": None}, "not_before", "not a known field"),
    "no repository": ({"prompt": "x"}, "options.publish", "must be `none`"),
    "no repository to push to": (
        {"prompt": "x", "options": {"publish": "branch"}},
        "options.publish",
        "`repositories`",
    ),
    "repositories no array": ({"prompt": "x", "repositories": "x"}, "repositories", "must be an array"),
    "repository no object": ({"prompt": "x", "repositories": [5]}, "repositories[0]", "must be an object"),
    "too many repositories": ({"prompt": "x", "repositories": [REPOSITORY] * 1_001}, "repositories", "at most 1000"),
    "ref like an option": (
        {"prompt": "x", "repositories": [REPOSITORY | {"baseRef": "--upload-pack=x"}]},
        "repositories[0].baseRef",
        "must match",
    ),
    "wrong kind": ({**TASK, "kind": "chore"}, "kind", "must be 'code' or 'task'"),
    "number as a string": ({**TASK, "options": {"maxTurns": "5"}}, "options.maxTurns", "must be an integer"),
    "number too large": ({**TASK, "priority": 101}, "priority", "at most 100"),
    "huge number": ({**TASK, "priority": 10**40}, "priority", ""),
    "time without a zone": ({**TASK, "notBefore": "2026-01-31T12:00:00"}, "notBefore", "time zone"),
    "no time": ({**TASK, "notBefore": "soon"}, "notBefore", ""),
    "surrogate as a name": ({**TASK, "\ud800": 1}, "\N{REPLACEMENT CHARACTER}", "lone surrogates"),
}

WRONG_BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "cut": (b'{"prompt": "x"', "line 1, column"),
    "second line": (b'{"prompt": "x",\n "kind" "task"}', "line 2, column"),
    "NaN": (b'{"prompt": "x", "priority": NaN}', "line 1, column 29"),
    "array": (b"[]", "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "10,000 deep": (b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "depth"),
    "10,000 deep objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "depth"),
    "deep behind a surrogate": (b'{"a": "\\ud800", "b": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "not valid JSON"),
    "Latin-1": ('{"prompt": "caf\xe9"}'.encode("latin-1"), "not valid UTF-8 at byte 15"),
    "byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "form": (b"prompt=x", "not valid JSON"),
    "second value": (b"{} {}", "not valid JSON"),
}


async def post(client: httpx.AsyncClient, body: bytes, **headers: str) -> httpx.Response:
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/v1/jobs", content=body, headers=sent)


async def count(database: Database) -> int:
    async with database.connection() as connection:
        found: int = await connection.fetchval("SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM runs)")
    return found


async def test_wrong_fields_are_named_and_nothing_is_created(gateway: httpx.AsyncClient, database: Database):
    for case, (body, field, words) in WRONG_FIELDS.items():
        answer = await post(gateway, json.dumps(body).encode())
        assert answer.status_code == 400, (case, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json", case
        problem = answer.json()
        assert problem["errors"][0]["field"] == field, (case, problem)
        assert words in problem["errors"][0]["message"], (case, problem)
        assert field in problem["detail"], (case, problem)
    assert await count(database) == 0


async def test_what_is_no_json_is_refused_with_its_place_and_nothing_is_created(
    gateway: httpx.AsyncClient, database: Database
):
    for case, (body, words) in WRONG_BODIES.items():
        answer = await post(gateway, body)
        assert answer.status_code == 400, (case, answer.text)
        assert words in answer.json()["detail"], (case, answer.text)
    assert await count(database) == 0


async def test_surrogates_in_raw_utf8_are_named_too(shared_gateway: httpx.AsyncClient):
    answer = await post(shared_gateway, b'{"kind": "task", "prompt": "a\xed\xa0\x80"}')
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "prompt", "message": "must not contain lone surrogates"}]


async def test_all_wrong_fields_are_named_at_once(shared_gateway: httpx.AsyncClient):
    body = {"prompt": "", "kind": "x", "repositories": [{"url": "", "x": 1}]}
    problem = (await post(shared_gateway, json.dumps(body).encode())).json()
    fields = {error["field"] for error in problem["errors"]}
    assert fields == {"prompt", "kind", "repositories[0].url", "repositories[0].x"}
    assert "and 1 more" in problem["detail"]


async def test_a_thousand_wrong_repositories_make_a_short_answer(shared_gateway: httpx.AsyncClient):
    body = {"prompt": "x", "repositories": [{"url": ""}] * 1_000}
    problem = (await post(shared_gateway, json.dumps(body).encode())).json()
    assert len(problem["errors"]) == 50


@pytest.mark.parametrize("not_before", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "5e11", "NaN"])
async def test_no_time_makes_the_server_fail(shared_gateway: httpx.AsyncClient, not_before: str):
    answer = await post(shared_gateway, json.dumps({**TASK, "notBefore": not_before}).encode())
    assert answer.status_code in (201, 400), answer.text


async def test_bodies_that_are_too_large_or_of_another_kind_are_refused(gateway: httpx.AsyncClient, database: Database):
    large = await post(gateway, json.dumps({**TASK, "name": "x" * 5_000_000}).encode())
    assert large.status_code == 413
    body = json.dumps(TASK).encode()
    assert (await post(gateway, body, Content_Type="text/plain")).status_code == 415
    assert (await gateway.post("/v1/jobs", content=body)).status_code == 415
    assert (await post(gateway, body, Content_Encoding="gzip")).status_code == 415
    assert (await post(gateway, body, Content_Type="application/json; charset=utf-16")).status_code == 415
    assert await count(database) == 0
    assert (await post(gateway, body, Content_Type="application/vnd.x+json; charset=UTF-8")).status_code == 201


async def test_a_body_that_breaks_off_creates_nothing(gateway: httpx.AsyncClient, database: Database):
    with socket.create_connection(("127.0.0.1", gateway.base_url.port or 0)) as connection:
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: {gateway.headers['Authorization']}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode() + b'5\r\n{"pro\r\nnonsense\r\n')
        connection.setblocking(False)
        async with asyncio.timeout(5):
            answer = await asyncio.get_running_loop().sock_recv(connection, 65_536)
    assert b" 400 Bad Request" in answer.partition(b"\r\n")[0]
    assert await count(database) == 0


async def test_an_accepted_job_is_shown_as_it_was_asked_for(gateway: httpx.AsyncClient):
    body = {"prompt": "über 🚀", "name": "n", "priority": -5, "repositories": [REPOSITORY, REPOSITORY]}
    answer = await gateway.post("/v1/jobs", json=body)
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["prompt"], job["name"], job["priority"]) == ("über 🚀", "n", -5)
    assert (job["state"], job["runs"]["total"]) == ("queued", 2)
    assert (await gateway.get(answer.headers["Location"])).json() == job


async def _one() -> int:
    return 1


async def test_the_scheduler_is_told_of_a_job(gateway: httpx.AsyncClient, scheduler: Scheduler):
    job = (await gateway.post("/v1/jobs", json=TASK)).json()
    messages = scheduler.bus.pull("COMMANDS", "qd.cmd.>", "test", batch=_one)
    async with asyncio.timeout(5):
        (message,) = await anext(messages)
    assert message.subject == "qd.cmd.job.submit"
    assert job["id"].encode() in message.data
    assert message.headers == {"Nats-Msg-Id": job["id"]}


async def test_twenty_posts_at_once_with_one_key_make_one_job(gateway: httpx.AsyncClient, database: Database):
    body = json.dumps(TASK).encode()
    answers = await asyncio.gather(*(post(gateway, body, Idempotency_Key="one key") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum(answer.headers.get("Idempotency-Replayed") == "true" for answer in answers) == 19
    assert await count(database) == 2


async def test_one_key_with_another_body_is_refused(gateway: httpx.AsyncClient, database: Database):
    await post(gateway, json.dumps(TASK).encode(), Idempotency_Key="k")
    answer = await post(gateway, json.dumps({**TASK, "prompt": "other"}).encode(), Idempotency_Key="k")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
    assert await count(database) == 2


async def test_one_key_of_two_clients_makes_two_jobs(gateway: httpx.AsyncClient, other_client: httpx.AsyncClient):
    body = json.dumps(TASK).encode()
    mine = await post(gateway, body, Idempotency_Key="k")
    theirs = await post(other_client, body, Idempotency_Key="k")
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "h\xe4"])
async def test_a_key_that_is_none_is_refused(shared_gateway: httpx.AsyncClient, key: str):
    headers = {b"Idempotency-Key": key.encode("latin-1"), b"Content-Type": b"application/json"}
    answer = await shared_gateway.post("/v1/jobs", content=json.dumps(TASK), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
