"""GitHub's webhook over HTTP: only what is signed is taken, and it wakes the very changesets that it is about."""

import asyncio
import hmac
import json
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import httpx
import pytest

from services.gateway.webhooks.github import PATH
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import StartGateway, is_healthy
from tests.integration.gateway.test_outages import Proxy, through
from tests.integration.jobs.changes import HOUR, open_change, sha
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until_async

SECRET = "it's a secret to everybody"
DELIVERY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
REPOSITORY = {"full_name": "A/One"}
FORM = "application/x-www-form-urlencoded"


def signature_of(body: bytes, secret: str = SECRET, kind: str = "sha256") -> str:
    return f"{kind}={hmac.new(secret.encode(), body, kind).hexdigest()}"


def pull_request(number: int, **more: Any) -> bytes:
    payload = {"action": "closed", "number": number, "pull_request": {"number": number}, "repository": REPOSITORY}
    return json.dumps(payload | more).encode()


async def deliver(client: httpx.AsyncClient, body: bytes, **headers: str | None) -> httpx.Response:
    """As GitHub does; ``headers``: other ones, with `_` for `-`, and None to leave one out."""
    sent: dict[str, str | None] = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "pull_request",
        "X-GitHub-Delivery": DELIVERY,
        "X-Hub-Signature-256": signature_of(body),
    }
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name.encode(): value.encode() for name, value in sent.items() if value is not None}
    # No key: GitHub has none.
    async with httpx.AsyncClient(base_url=client.base_url, timeout=30, trust_env=False) as github:
        return await github.post(PATH, content=body, headers=kept)


@pytest.fixture
async def hooked(database_url: str, nats_url: str, start_gateway: StartGateway) -> httpx.AsyncClient:
    """A healthy gateway whose webhook is set up."""
    client = await start_gateway(database_url, nats_url, github_webhook_secret=SECRET)
    await until_async(lambda: is_healthy(client))
    return client


@pytest.fixture
async def domain(database: Database) -> Domain:
    domain = Domain(database)
    domain.client = await domain.new_client("tester")
    return domain


async def due(domain: Domain) -> list[UUID]:
    await until_done(domain)
    return [change.id for change in await domain.tracking.take_due(most=100, again=HOUR)]


async def until_done(domain: Domain) -> None:
    """Deliveries are answered before what they ask for is done."""

    async def nothing_is_due() -> bool:
        return not await domain.rows("SELECT FROM webhook_deliveries WHERE due_at IS NOT NULL")

    await until_async(nothing_is_due)


async def deliveries(domain: Domain) -> list[tuple[str, str, str]]:
    rows = await domain.rows("SELECT source, delivery, event FROM webhook_deliveries ORDER BY delivery")
    return [(row["source"], row["delivery"], row["event"]) for row in rows]


async def test_a_delivery_makes_exactly_the_changeset_due_that_it_is_about(
    hooked: httpx.AsyncClient, domain: Domain
) -> None:
    first, second = [await open_change(domain, number) for number in (1, 2)]
    await open_change(domain, 1, "https://forge.example/a/two.git")
    assert await due(domain) == []
    before = await domain.row("changesets", first)

    answer = await deliver(hooked, pull_request(1))

    assert (answer.status_code, answer.json()) == (200, {"result": "taken"})
    await until_done(domain)
    after = await domain.row("changesets", first)
    # Whatever it says: the forge is asked, and nothing else is believed.
    assert {name for name, value in after.items() if value != before[name]} == {"observe_at"}
    assert await due(domain) == [first]
    assert await deliveries(domain) == [("github", DELIVERY, "pull_request")]

    branch = (await domain.row("changesets", second))["branch"]
    pushed = json.dumps({"ref": f"refs/heads/{branch}", "after": sha("e"), "repository": REPOSITORY}).encode()
    await deliver(hooked, pushed, X_GitHub_Event="push", X_GitHub_Delivery="2")
    assert await due(domain) == [second]

    commit = json.dumps({"sha": before["commit_sha"], "state": "success", "repository": REPOSITORY}).encode()
    await deliver(hooked, commit, X_GitHub_Event="status", X_GitHub_Delivery="3")
    assert set(await due(domain)) == {first, second}


async def test_what_is_of_no_interest_is_taken_and_wakes_nothing(hooked: httpx.AsyncClient, domain: Domain) -> None:
    await open_change(domain, 1)
    bodies = {
        "ping": {"zen": "Keep it logically awesome.", "hook_id": 1, "repository": REPOSITORY},
        "star": {"action": "created", "repository": REPOSITORY},
        "pull_request": {"pull_request": {"number": 9}},
        "issue_comment": {"issue": {"number": 1}, "repository": REPOSITORY},
        "push": {"ref": ["refs/heads/a\u0000"], "repository": {"full_name": "a/one\u0000"}},
    }
    for number, (event, body) in enumerate(bodies.items()):
        headers = {"X_GitHub_Event": event, "X_GitHub_Delivery": str(number)}
        answer = await deliver(hooked, json.dumps(body).encode(), **headers)
        assert (answer.status_code, answer.json()) == (200, {"result": "nothing to do"}), event
    assert await due(domain) == []
    assert len(await deliveries(domain)) == len(bodies)


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        signature_of(pull_request(1))[:-1],
        signature_of(pull_request(1)) + "0",
        signature_of(pull_request(1)).removeprefix("sha256="),
        signature_of(pull_request(1), "another"),
        signature_of(pull_request(2)),
        signature_of(pull_request(1), kind="sha1"),
        "sha256=\xff\xfe",
    ],
)
async def test_what_is_not_signed_with_the_secret_is_refused(
    hooked: httpx.AsyncClient, domain: Domain, signature: str | None
) -> None:
    await open_change(domain, 1)
    older = signature_of(pull_request(1), kind="sha1")
    answer = await deliver(hooked, pull_request(1), X_Hub_Signature_256=signature, X_Hub_Signature=older)
    assert (answer.status_code, "X-Hub-Signature-256" in answer.json()["detail"]) == (401, True)
    assert SECRET not in answer.text
    assert await due(domain) == []
    assert await deliveries(domain) == []


async def test_without_a_secret_no_webhook_is_there(gateway: httpx.AsyncClient) -> None:
    for secret in (SECRET, "", "None"):
        body = pull_request(1)
        answer = await deliver(gateway, body, X_Hub_Signature_256=signature_of(body, secret))
        assert (answer.status_code, "GITHUB_WEBHOOK_SECRET" in answer.json()["detail"]) == (404, True)


WRONG_BODIES = {
    "empty": b"",
    "cut": b'{"action": "closed"',
    "array": b"[]",
    "null": b"null",
    "NaN": b'{"number": NaN}',
    "10,000 deep": b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "10,000 deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "lone surrogate": b'{"a": "\\ud800"}',
}


async def test_what_is_no_json_object_is_refused(hooked: httpx.AsyncClient, domain: Domain) -> None:
    for case, body in WRONG_BODIES.items():
        answer = await deliver(hooked, body)
        assert (answer.status_code, "JSON" in answer.json()["detail"]) == (400, True), case
    for form in ("", "a=b", "payload", "payload=1", "payload=%7B", "payload=%ff", "payload={}&a=b", "\N{SNOWMAN}"):
        answer = await deliver(hooked, form.encode(), Content_Type=FORM)
        assert (answer.status_code, "JSON" in answer.json()["detail"]) == (400, True), form
    assert await deliveries(domain) == []


async def test_a_form_is_taken_as_github_sends_it(hooked: httpx.AsyncClient, domain: Domain) -> None:
    changeset = await open_change(domain, 1)
    form = urlencode({"payload": pull_request(1, note="\N{SNOWMAN} & more").decode()}).encode()
    answer = await deliver(hooked, form, Content_Type=FORM)
    assert (answer.status_code, answer.json()) == (200, {"result": "taken"})
    assert await due(domain) == [changeset]


async def test_the_headers_that_github_sends_are_asked_for(hooked: httpx.AsyncClient, domain: Domain) -> None:
    for name in ("X-GitHub-Delivery", "X-GitHub-Event"):
        for value in (None, "", "a b", "../x", "x" * 101):
            answer = await deliver(hooked, pull_request(1), **{name.replace("-", "_"): value})
            assert (answer.status_code, name in answer.json()["detail"]) == (400, True), (name, value)
    assert await deliveries(domain) == []


async def test_a_delivery_that_comes_a_hundred_times_at_once_is_remembered_once(
    hooked: httpx.AsyncClient, domain: Domain
) -> None:
    changeset = await open_change(domain, 1)
    answers = await asyncio.gather(*(deliver(hooked, pull_request(1)) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert await deliveries(domain) == [("github", DELIVERY, "pull_request")]
    assert await due(domain) == [changeset]


async def test_a_delivery_may_be_as_large_as_github_sends_them(hooked: httpx.AsyncClient, domain: Domain) -> None:
    changeset = await open_change(domain, 1)
    assert (await hooked.post("/v1/jobs", content=b" " * 5 * 1024**2)).status_code in (413, 415)
    answer = await deliver(hooked, pull_request(1, padding="x" * 5 * 1024**2))
    assert (answer.status_code, await due(domain)) == (200, [changeset])

    too_large = await deliver(hooked, pull_request(1, padding="x" * 26 * 1024**2))
    assert (too_large.status_code, "too large" in too_large.json()["detail"]) == (413, True)
    assert await due(domain) == []


async def test_without_postgres_a_delivery_is_to_come_again(
    start_gateway: StartGateway, database_url: str, nats_url: str, domain: Domain
) -> None:
    changeset = await open_change(domain, 1)
    proxy = Proxy(urlsplit(database_url).port or 5432)
    await proxy.open()
    hooked = await start_gateway(through(proxy, database_url), nats_url, github_webhook_secret=SECRET)
    await until_async(lambda: is_healthy(hooked))
    await proxy.close()

    answer = await deliver(hooked, pull_request(1))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert await deliveries(domain) == []

    await proxy.open()
    await until_async(lambda: is_healthy(hooked))
    assert (await deliver(hooked, pull_request(1))).status_code == 200
    assert (await due(domain), len(await deliveries(domain))) == ([changeset], 1)
    await proxy.close()
