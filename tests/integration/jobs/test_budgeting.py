"""Reservations: what runs side by side may use together is never more than the budgets over them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from uuid import uuid4

import pytest

from services.contracts.agents import Budget
from services.contracts.spending import Budgets
from services.contracts.words import ExitReason
from services.jobs.budgeting import Budgeting, Refusal, Room
from services.jobs.errors import LeaseLostError, NotAllowedError, UnknownClientError
from services.jobs.models import Checkpoint, ClaimedRun, Client, ModelUse, Usage
from services.jobs.spending import BudgetSetting, UsageReading
from services.runtime.postgres import Database
from tests.integration.jobs.domain import Domain

AGENTS = 30
TODAY = "(now() AT TIME ZONE 'UTC')::date"


class Spender:
    """A run whose requests are reserved, and stored as used, like an agent's."""

    def __init__(self, domain: Domain, run: ClaimedRun, *, job_budget: Budget | None = None) -> None:
        self.budgeting = Budgeting(domain.database)
        self.domain = domain
        self.run = run
        self._job_budget = job_budget

    async def reserve(self, tokens: int, microusd: int | None = 0) -> Refusal | None:
        return await self.budgeting.reserve(
            self.run.hold, client_id=self.run.client_id, tokens=tokens, microusd=microusd, job_budget=self._job_budget
        )

    async def use(self, tokens: int, microusd: int | None = 0) -> None:
        use = ModelUse(Usage(output_tokens=tokens), "a-model", cost_microusd=microusd)
        await self.domain.running.checkpoint(self.run.hold, Checkpoint(usage=use))


async def set_budgets(domain: Domain, **budgets: object) -> Budgets:
    """``budgets``: as JSON has them."""
    operator = Client(domain.client.id, domain.client.name, is_operator=True)
    return await BudgetSetting(domain.database).replace(operator, Budgets.model_validate(budgets))


async def spender(domain: Domain, *, client: Client | None = None, job_budget: Budget | None = None) -> Spender:
    run = await domain.start(f"https://forge.example/{uuid4()}.git", client=client)
    return Spender(domain, run, job_budget=job_budget)


async def reserved(domain: Domain) -> list[int]:
    return [row["tokens"] for row in await domain.rows("SELECT tokens FROM reservations ORDER BY tokens")]


def refused(refusal: Refusal | None) -> Refusal:
    assert refusal is not None
    return refusal


async def test_without_a_budget_everything_may_be_reserved(domain: Domain) -> None:
    one = await spender(domain)

    assert await one.reserve(10**9, 10**9) is None
    assert await one.reserve(5, None) is None
    assert await reserved(domain) == [5]


@pytest.mark.parametrize(
    "budgets",
    [
        {"day": {"tokens": 100}},
        {"client": {"default": {"tokens": 100}}},
        {"client": {"default": {"tokens": 1}, "byName": {"tester": {"tokens": 100}}}},
        {"clientDay": {"default": {"tokens": 100}}},
        {"clientDay": {"default": {"tokens": 1}, "byName": {"tester": {"tokens": 100}}}},
        {"day": {"usd": 100 / 1e6}},
        {"client": {"default": {"usd": 100 / 1e6}}},
        {"clientDay": {"byName": {"tester": {"usd": 100 / 1e6}}}},
    ],
)
async def test_what_was_used_and_reserved_is_never_more_than_the_budget(
    domain: Domain, budgets: dict[str, object]
) -> None:
    await set_budgets(domain, **budgets)
    one, two = await spender(domain), await spender(domain)
    await one.use(30, 30)

    assert await one.reserve(50, 50) is None
    refusal = refused(await two.reserve(21, 21))
    limit = "tokens" if refusal.left.tokens is not None else "microusd"
    assert getattr(refusal.left, limit) == 20
    assert getattr(refusal.left_at_most, limit) == 70
    assert await two.reserve(20, 20) is None
    assert await one.reserve(51, 51) is not None  # in place of its own 50, which do not count against it
    assert await two.reserve(70, 70) is None  # what was refused holds nothing any more


async def test_a_jobs_budget_is_for_all_of_its_runs(domain: Domain) -> None:
    job_id = await domain.submit("https://forge.example/a.git", "https://forge.example/b.git")
    orders = [order for order in await domain.admit() if order.job_id == job_id]
    budget = Budget(tokens=100, usd=1)
    one, two = [Spender(domain, await domain.claimed(order), job_budget=budget) for order in orders]
    other = await spender(domain, job_budget=budget)
    await one.use(40)

    assert await one.reserve(30) is None
    assert refused(await two.reserve(31)).left == Room(30, 1_000_000)
    assert refused(await two.reserve(1, 1_000_001)).words.startswith("this job's budget is 1 USD: 1 USD are left")
    assert await other.reserve(100) is None


async def test_the_words_name_the_budget_its_size_and_what_is_left(domain: Domain) -> None:
    await set_budgets(domain, day={"usd": 20}, client={"default": {"tokens": 1_000_000}})
    one, two = await spender(domain), await spender(domain)
    await one.use(900_000, 19_500_000)
    assert await one.reserve(1, 250_000) is None

    (today,) = await domain.rows(f"SELECT {TODAY} AS day")
    assert refused(await two.reserve(10, 400_000)).words == (
        f"the budget of all clients for the day {today['day']} (UTC) is 20 USD: 0.25 USD are left of it, besides what "
        "other requests under way may come to, and the next request may come to 0.4 USD; retry the run when more is "
        "left, or with a higher budget"
    )
    assert refused(await one.reserve(100_001, 0)).words.startswith(
        "this client's budget is 1,000,000 tokens: 100,000 tokens are left of it, and the next request may come to "
        "100,001 tokens"
    )


async def test_clients_have_budgets_of_their_own_and_share_the_fleets(domain: Domain) -> None:
    other = await domain.new_client("other")
    await set_budgets(
        domain, day={"tokens": 150}, client={"default": {"tokens": 100}, "byName": {"other": {"usd": None}}}
    )
    one, two = await spender(domain), await spender(domain, client=other)
    await one.use(100)

    assert refused(await one.reserve(1)).left.tokens == 0
    assert refused(await two.reserve(51)).left.tokens == 50  # no budget of its own, in place of the default
    assert await two.reserve(50) is None


async def test_a_day_ends_at_midnight_utc_and_reservations_count_for_today(domain: Domain) -> None:
    await set_budgets(domain, day={"tokens": 100}, clientDay={"default": {"tokens": 90}}, client={"byName": {}})
    one, two = await spender(domain), await spender(domain)
    assert await one.reserve(60) is None
    yesterday = f"INSERT INTO spending (client_id, day, tokens) VALUES ($1, {TODAY} - 1, 1000)"
    await domain.execute(yesterday, domain.client.id)
    await domain.execute("UPDATE reservations SET created_at = now() - interval '1 day'")

    assert refused(await two.reserve(31)).left.tokens == 30  # from one's reservation alone
    await one.use(60)
    rows = await domain.rows(f"SELECT day = {TODAY} AS today, tokens FROM spending ORDER BY day")
    assert [(row["today"], row["tokens"]) for row in rows] == [(False, 1000), (True, 60)]
    assert refused(await two.reserve(31)).left.tokens == 30

    await set_budgets(domain, client={"default": {"tokens": 1_100}})
    assert refused(await two.reserve(41)).left.tokens == 40  # all time


async def test_an_unpriced_request_passes_no_budget_in_usd(domain: Domain) -> None:
    await set_budgets(domain, clientDay={"default": {"tokens": 100}})
    one = await spender(domain)
    assert await one.reserve(10, None) is None

    await set_budgets(domain, clientDay={"default": {"usd": 100}})
    assert "unpriced" in refused(await one.reserve(10, None)).words
    assert await one.reserve(10, 0) is None


async def test_only_the_holder_of_the_run_reserves(domain: Domain) -> None:
    await set_budgets(domain, day={"tokens": 100})
    one = await spender(domain)
    assert await one.reserve(10) is None
    forged = Spender(domain, replace(one.run, hold=replace(one.run.hold, token=uuid4())))

    for tokens in (20, 200):
        with pytest.raises(LeaseLostError):
            await forged.reserve(tokens)
    await domain.cancelling.request(domain.client, one.run.hold.job_id)
    with pytest.raises(LeaseLostError):
        await one.reserve(20)
    assert await reserved(domain) == [10]


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_what_a_crashed_agent_had_reserved_is_released_by_the_sweep(domain: Domain) -> None:
    await set_budgets(domain, day={"tokens": 100})
    crashed, failed, alive = [await spender(domain) for _ in range(3)]
    for tokens, one in ((50, crashed), (20, failed), (30, alive)):
        assert await one.reserve(tokens) is None
    await domain.execute("UPDATE reservations SET created_at = now() - interval '6 seconds'")
    await domain.scheduling.forget_old()
    assert await reserved(domain) == [20, 30, 50]

    await domain.running.fail(failed.run.hold, ExitReason.INTERNAL, error="it failed")
    await domain.expire(crashed.run.hold.run_id)
    assert await domain.lose() == 1
    resumed = await domain.resume(crashed.run.hold.run_id)
    await domain.scheduling.forget_old()

    assert await reserved(domain) == [30]
    assert await Spender(domain, resumed).reserve(70) is None


async def thirty(domain: Domain) -> list[Spender]:
    """Spenders of several clients, each with a run."""
    clients = [await domain.new_client(f"client {number}") for number in range(5)]
    return [await spender(domain, client=clients[number % 5]) for number in range(AGENTS)]


async def spend_all(one: Spender, *, most: int, exactly: bool) -> int:
    """Turns of up to ``most`` tokens, reserved before, until not one token more is given; return their sum.

    ``exactly``: all that was reserved is used, else some of it, as when a model stops before its limit.
    """
    used = 0
    while True:
        wanted = most
        while (refusal := await one.reserve(wanted)) is not None:
            assert refusal.left.tokens is not None
            assert refusal.left_at_most.tokens is not None
            if refusal.left_at_most.tokens <= 0:
                return used
            if refusal.left.tokens > 0:
                wanted = min(most, refusal.left.tokens)
            else:
                await asyncio.sleep(0.01)
        turn = wanted if exactly else random.randint(max(1, wanted // 2), wanted)
        await one.use(turn)
        used += turn


@pytest.mark.parametrize("exactly", [True, False])
async def test_thirty_agents_use_up_a_days_budget_and_no_token_more(
    domain: Domain, domain_database_url: str, *, exactly: bool
) -> None:
    budget = 60_000
    spenders = await thirty(domain)
    await set_budgets(domain, day={"tokens": budget})
    wide = Database(domain_database_url, size=AGENTS, name="test spenders")
    try:
        for one in spenders:
            one.budgeting = Budgeting(wide)
        async with asyncio.timeout(60):
            used = await asyncio.gather(*(spend_all(one, most=1_000, exactly=exactly) for one in spenders))
    finally:
        await wide.close()

    (row,) = await domain.rows("SELECT sum(tokens)::bigint AS tokens FROM spending")
    assert sum(used) == row["tokens"] == budget
    assert await reserved(domain) == []


async def test_turns_that_cost_more_than_was_reserved_overshoot_by_one_each_at_most(domain: Domain) -> None:
    """An estimate may be wrong: a turn that is dearer than its reservation is the last to be let through."""
    budget, most, real = 20_000, 1_000, 1_200
    spenders = await thirty(domain)
    await set_budgets(domain, day={"tokens": budget})

    async def turns(one: Spender) -> None:
        while True:
            refusal = await one.reserve(most)
            if refusal is None:
                await one.use(real)
            elif refusal.left_at_most.holds(most, 0):
                await asyncio.sleep(0.01)
            else:
                return

    async with asyncio.timeout(60):
        await asyncio.gather(*(turns(one) for one in spenders))

    (row,) = await domain.rows("SELECT sum(tokens)::bigint AS tokens FROM spending")
    assert budget - most < row["tokens"] <= budget + AGENTS * (real - most)


async def test_a_report_has_the_days_their_sum_and_what_is_left(domain: Domain) -> None:
    other = await domain.new_client("other")
    one, two = await spender(domain), await spender(domain, client=other)
    await domain.execute(
        f"INSERT INTO spending VALUES ($1, {TODAY} - 29, 7, 70), ($1, {TODAY} - 30, 9, 90)", domain.client.id
    )
    await one.use(30, 1_500_000)
    await two.use(5, 500_000)
    await set_budgets(
        domain, day={"usd": 10, "tokens": 1_000}, clientDay={"default": {"usd": 3}}, client={"default": {"tokens": 20}}
    )
    assert await two.reserve(4, 250_000) is None
    usage = UsageReading(domain.database)

    report = await usage.report(domain.client, of=None, first_day=None, last_day=None)
    assert [(day.tokens, day.usd) for day in report.days] == [(7, 0.00007), (30, 1.5)]
    assert (report.client, report.total.tokens, report.total.usd) == ("tester", 37, 1.50007)
    assert report.left_today == Budget(usd=1.5, tokens=0)  # of 20 in all, which were set when they were used
    assert (report.last_day - report.first_day).days == 29

    operator = replace(domain.client, is_operator=True)
    seen = await usage.report(operator, of="other", first_day=report.last_day, last_day=report.last_day)
    assert (seen.client, seen.total.tokens, seen.left_today) == ("other", 5, Budget(usd=2.25, tokens=11))
    with pytest.raises(NotAllowedError):
        await usage.report(domain.client, of="other", first_day=None, last_day=None)
    with pytest.raises(UnknownClientError):
        await usage.report(operator, of="nobody", first_day=None, last_day=None)
