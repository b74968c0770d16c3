"""What an order says of its run is what a claim of it would say; where it cannot be all, it says nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from services.contracts.words import Outcome
from services.jobs.admitting import MOST_AT_ONCE
from services.jobs.models import ClaimedRun
from services.jobs.orders import Order
from services.scheduler.admission import encoded_orders
from tests.integration.jobs.domain import REPOSITORY, Domain, order_of

NATS_MOST_BYTES = 1024**2
LONG_PROMPT = "x" * 3_501


async def taken_up(domain: Domain, order: Order) -> ClaimedRun:
    claim = order.as_claim()
    assert claim is not None
    return await domain.running.take_up(claim)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="a change"),
        pytest.param({"kind": "task"}, id="a conversation"),
        pytest.param({"name": "A näme", "onExisting": "skip"}, id="may be skipped"),
        pytest.param({"prompt": 'Ändere "dies"\n\\ und \u2028 das 🚢'}, id="any characters"),
        pytest.param({"maxAttempts": 7, "deadlineSeconds": 90, "idleLimitSeconds": 60}, id="options"),
        pytest.param({"baseRef": "a-branch", "checkout": {"path": "a/folder"}}, id="where"),
    ],
)
async def test_it_is_what_a_claim_says(domain: Domain, fields: dict[str, Any]) -> None:
    where = {key: fields.pop(key) for key in ("baseRef", "checkout") if key in fields}
    if where:
        fields["repositories"] = [{"url": REPOSITORY, **where}]
    await domain.execute("INSERT INTO client_settings (client_id, settings) VALUES ($1, $2)", domain.client.id, {})
    order = await domain.dispatch_one(**fields)
    lease = await domain.row("leases", order.run_id)

    said = await taken_up(domain, order_of(order))

    assert await domain.row("leases", order.run_id) == lease, "nobody was told"
    claimed = await domain.claimed(order)
    assert 0 <= said.seconds_left - claimed.seconds_left < 5
    assert said == replace(claimed, seconds_left=said.seconds_left)


async def test_it_says_whether_a_budget_binds_its_client(domain: Domain) -> None:
    assert not (await taken_up(domain, order_of(await domain.dispatch_one()))).is_budgeted

    await domain.execute("INSERT INTO budgets (scope, name, tokens) VALUES ('client', $1, 1)", domain.client.name)

    assert (await taken_up(domain, order_of(await domain.dispatch_one("https://a/other")))).is_budgeted


async def test_it_has_the_settings_of_its_client(domain: Domain) -> None:
    settings = {"maxTurns": 7, "systemPrompt": "Be brief."}
    await domain.execute(
        "INSERT INTO client_settings (client_id, settings) VALUES ($1, $2)", domain.client.id, settings
    )

    said = await taken_up(domain, order_of(await domain.dispatch_one()))

    assert (said.client_settings.max_turns, said.client_settings.system_prompt) == (7, "Be brief.")


SEALED_JOB = "UPDATE jobs SET sealed = 'secret'"
SEALED_CLIENT = "INSERT INTO client_settings (client_id, settings, sealed) SELECT id, '{}', 'secret' FROM clients"


@pytest.mark.parametrize("before", [SEALED_JOB, SEALED_CLIENT])
async def test_it_says_nothing_where_there_are_secrets(domain: Domain, before: str) -> None:
    job_id = await domain.submit()
    await domain.execute(before)

    (order,) = await domain.admit()

    assert (order.job_id, order.work, order_of(order).as_claim()) == (job_id, None, None)
    assert len((await domain.claimed(order)).sealed) == 1


async def test_it_says_nothing_of_a_run_with_a_long_prompt_or_options(domain: Domain) -> None:
    orders = [
        await domain.dispatch_one("https://a/1", prompt=LONG_PROMPT),
        await domain.dispatch_one("https://a/2", prompt="ü" * (len(LONG_PROMPT) // 2 + 1)),  # of as many bytes
    ]
    job_id = await domain.submit("https://a/3")
    await domain.execute("UPDATE jobs SET options = options || $2 WHERE id = $1", job_id, {"systemPrompt": LONG_PROMPT})
    orders += await domain.admit()

    assert [order.work for order in orders] == [None, None, None]


async def test_large_settings_are_not_read_for_each_run(domain: Domain) -> None:
    """Of a client that has as much of them as it may: 256 times that is more than a transaction has time for."""
    words = [f"{number:0500x}" for number in range(100)]
    servers = {f"server-{number}": {"type": "stdio", "command": words} for number in range(20)}
    servers |= {f"more-{number}": {"type": "stdio", "command": ["x" * 490] * 90} for number in range(60)}  # compresses
    await domain.execute(
        "INSERT INTO client_settings (client_id, settings) VALUES ($1, $2)",
        domain.client.id,
        {"mcpServers": servers, "systemPrompt": "y" * 50_000},
    )
    await domain.submit(*(f"https://a/{n}" for n in range(MOST_AT_ONCE)))

    orders = await domain.admit(MOST_AT_ONCE)

    assert [order.work for order in orders] == [None] * MOST_AT_ONCE


async def test_small_settings_that_were_large_are_not_said(domain: Domain) -> None:
    """What compresses well is small where it is stored only."""
    await domain.execute(
        "INSERT INTO client_settings (client_id, settings) VALUES ($1, $2)",
        domain.client.id,
        {"systemPrompt": "y" * 50_000},
    )

    assert (await domain.dispatch_one()).work is None


async def test_it_says_nothing_of_a_run_that_was_begun_before(domain: Domain) -> None:
    run = await domain.start()
    await domain.running.interrupted(run.hold)

    (order,) = await domain.admit()

    assert order.work is None


async def test_it_says_nothing_of_a_run_that_goes_on_from_another(domain: Domain) -> None:
    run = await domain.start()
    await domain.cancelling.request(domain.client, run.hold.job_id)
    await domain.running.cancelled(run.hold)
    await domain.retry(run.hold.job_id, resume=True)

    (order,) = await domain.admit()

    assert order.work is None


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="by a scheduler of another version"),
    ],
)
async def test_where_too_little_is_said_it_is_to_be_claimed(domain: Domain, said: bytes) -> None:
    order = order_of(await domain.dispatch_one())
    assert replace(order, work=said).as_claim() is None
    for key in orjson.loads(order.work):
        work = {name: value for name, value in orjson.loads(order.work).items() if name != key}
        assert replace(order, work=orjson.dumps(work)).as_claim() is None, key


async def test_what_one_admission_orders_is_one_message(domain: Domain) -> None:
    """However much each says."""
    await domain.submit(*(f"https://a/{n}/{'y' * 400}" for n in range(MOST_AT_ONCE)), prompt="x" * 900)

    orders = await domain.admit(MOST_AT_ONCE)

    assert len(orders) == MOST_AT_ONCE
    assert all(order.work for order in orders)
    assert len(encoded_orders([replace(order, work=b"x" * 3_500) for order in orders])) < NATS_MOST_BYTES


async def test_the_end_of_a_run_that_was_begun_by_its_order_is_as_of_any(domain: Domain) -> None:
    order = await domain.dispatch_one()
    run = await taken_up(domain, order_of(order))

    assert await domain.running.complete(run.hold, Outcome.NO_CHANGES, summary="nothing to do")

    assert await domain.run_states(order.job_id) == ["completed"]
    assert await domain.rows("SELECT FROM leases") == []
