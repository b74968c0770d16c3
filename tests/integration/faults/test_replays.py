"""One request, many times at once over several gateways: one job."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx

from services.runtime.postgres import Database
from tests.integration.faults.conftest import StartGateway
from tests.integration.faults.ledger import rows_of

TIMES = 100
TASK = {"prompt": "say hello", "kind": "task"}


async def test_a_hundred_posts_at_once_over_two_gateways_make_one_job(
    start_gateway: StartGateway, database: Database
) -> None:
    gateways = [await start_gateway() for _ in range(2)]
    for gateway in gateways:
        await gateway.until_healthy()

    async def post(number: int) -> httpx.Response:
        client = gateways[number % 2].client
        return await client.post("/v1/jobs", json=TASK, headers={"Idempotency-Key": "the same"})

    answers = await asyncio.gather(*(post(number) for number in range(TIMES)))

    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: TIMES - 1}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(await rows_of(database, "SELECT FROM jobs")) == 1
    assert len(await rows_of(database, "SELECT FROM runs")) == 1
    assert len(await rows_of(database, "SELECT FROM events WHERE kind = 'job.submitted'")) == 1
