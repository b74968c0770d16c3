"""What a request may ask for under every kind of budget, against a model that uses what it likes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent import allowance
from services.agent.allowance import Allowance, BudgetExhaustedError
from services.agent.model.prices import cost_microusd, worst_microusd
from services.contracts.agents import Budget
from services.jobs.budgeting import Refusal, Room
from services.jobs.models import Spent, Usage

PRICED = "claude-sonnet-5-5"  # USD a million tokens: 2 in, 2.5 into the cache, 10 out
MAX_TOKENS = 64_000


@dataclass
class Shared:
    """Stands in for the budgets in Postgres: answers in turn, then lets everything pass."""

    refusals: list[Refusal] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    news: int = 0

    async def reserve(self, **asked: Any) -> Refusal | None:
        self.asked.append(asked)
        return self.refusals.pop(0) if self.refusals else None

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def made(
    *,
    model: str = PRICED,
    spent: Spent | None = None,
    run: Budget | None = None,
    job: Budget | None = None,
    shared: Shared | None = None,
    **options: bool,
) -> Allowance:
    shared = shared or Shared()
    return Allowance(
        model=model,
        spent=spent or Spent(),
        run_budget=run,
        job_budget=job,
        allow_unpriced=options.get("allow_unpriced", False),
        is_budgeted=options.get("is_budgeted", False),
        reserve=shared.reserve,
        news=lambda: shared.news,
        news_known=0,
        pause=shared.pause,
    )


def refusal(left: int | None, at_most: int | None, *, microusd: bool = False) -> Refusal:
    rooms = [Room(None, number) if microusd else Room(number, None) for number in (left, at_most)]
    return Refusal("the day's budget is 9 tokens", *rooms)


async def test_without_a_budget_all_that_is_asked_for_is_given_and_nothing_reserved() -> None:
    shared = Shared()
    assert await made(shared=shared).before(3_000, MAX_TOKENS) == MAX_TOKENS
    assert await made(shared=shared, job=Budget()).before(3_000, MAX_TOKENS) == MAX_TOKENS
    assert shared.asked == []


@pytest.mark.parametrize(
    ("run", "spent", "given_tokens"),
    [
        (Budget(tokens=10_000), Spent(), 9_000),  # 3,000 bytes are taken for 1,000 tokens
        (Budget(tokens=10_000), Spent(tokens=6_000), 3_000),
        (Budget(usd=0.1), Spent(), 9_750),  # the input may cost 0.0025
        (Budget(usd=0.1), Spent(microusd=50_000), 4_750),
        (Budget(usd=0.1, tokens=5_000), Spent(), 4_000),
        (Budget(usd=1_000, tokens=10**9), Spent(), MAX_TOKENS),
        (Budget(usd=0.0025 + 0.01024), Spent(), 1_024),
    ],
)
async def test_the_output_is_what_the_runs_budget_leaves_beside_the_input(
    run: Budget, spent: Spent, given_tokens: int
) -> None:
    assert await made(run=run, spent=spent).before(3_000, MAX_TOKENS) == given_tokens


@pytest.mark.parametrize(
    ("run", "spent", "words"),
    [
        (Budget(usd=5), Spent(microusd=4_990_000), "the run's budget is 5 USD: 0.01 USD are left of it"),
        (Budget(usd=5), Spent(microusd=6_000_000), "the run's budget is 5 USD: 0 USD are left of it"),
        (Budget(usd=0), Spent(), "the run's budget is 0 USD"),
        (Budget(tokens=2_023), Spent(), "is 2,023 tokens: 2,023 tokens are left of it, and the next request may come"),
        (Budget(tokens=1_000_000, usd=0.012), Spent(), "the run's budget is 0.012 USD"),
    ],
)
async def test_too_little_for_a_reply_is_refused_with_the_budget_its_size_and_what_is_left(
    run: Budget, spent: Spent, words: str
) -> None:
    with pytest.raises(BudgetExhaustedError, match="higher `runBudget`") as refused:
        await made(run=run, spent=spent).before(3_000, MAX_TOKENS)
    assert words in str(refused.value)


async def test_a_small_reply_is_enough_where_no_more_was_asked_for() -> None:
    small = made(run=Budget(tokens=1_300))
    assert await small.before(3_000, 256) == 256
    with pytest.raises(BudgetExhaustedError):
        await small.before(3_000, 301)


async def test_an_unpriced_model_needs_leave_under_a_budget_in_usd() -> None:
    with pytest.raises(BudgetExhaustedError, match=r"offline is unpriced.*allowUnpriced"):
        await made(model="offline", run=Budget(usd=5)).before(3_000, MAX_TOKENS)
    assert await made(model="offline", run=Budget(usd=5), allow_unpriced=True).before(30, MAX_TOKENS) == MAX_TOKENS
    assert await made(model="offline", run=Budget(tokens=2_024)).before(3_000, MAX_TOKENS) == 1_024


@pytest.mark.parametrize(("allowed", "microusd"), [(False, None), (True, 0)])
async def test_shared_budgets_are_told_whether_an_unpriced_model_is_allowed(
    *, allowed: bool, microusd: int | None
) -> None:
    shared = Shared()
    await made(model="offline", shared=shared, is_budgeted=True, allow_unpriced=allowed).before(300, 2_000)
    assert shared.asked == [{"tokens": 2_100, "microusd": microusd, "job_budget": None}]


async def test_a_shared_budget_is_asked_for_the_worst_and_then_for_what_it_leaves() -> None:
    shared = Shared([refusal(20_000, 50_000), refusal(5_000, 50_000)])
    job = Budget(usd=3)

    assert await made(shared=shared, job=job).before(3_000, MAX_TOKENS) == 4_000
    assert [asked["tokens"] for asked in shared.asked] == [65_000, 20_000, 5_000]
    assert [asked["microusd"] for asked in shared.asked] == [642_500, 192_500, 42_500]
    assert shared.asked[0]["job_budget"] is job
    assert shared.pauses == []


async def test_what_is_left_in_usd_lowers_the_output_too() -> None:
    shared = Shared([refusal(102_500, 102_500, microusd=True)])
    assert await made(shared=shared, is_budgeted=True).before(3_000, MAX_TOKENS) == 10_000
    assert shared.asked[-1]["microusd"] == 102_500


async def test_what_others_may_give_back_is_waited_for() -> None:
    shared = Shared([refusal(10, 50_000)] * 7)
    assert await made(shared=shared, is_budgeted=True).before(3_000, MAX_TOKENS) == MAX_TOKENS
    assert shared.pauses == [0.25, 0.5, 1, 2, 4, 5, 5]


async def test_what_nobody_can_give_back_is_not_waited_for() -> None:
    shared = Shared([refusal(10, 2_023)])
    with pytest.raises(BudgetExhaustedError, match="the day's budget is 9 tokens"):
        await made(shared=shared, is_budgeted=True).before(3_000, MAX_TOKENS)
    assert shared.pauses == []


async def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    shared = Shared([refusal(10, 50_000)] * 1_000)

    async def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(shared, "pause", pause)
    monkeypatch.setattr(allowance, "monotonic", lambda: now)
    with pytest.raises(BudgetExhaustedError, match="the day's budget"):
        await made(shared=shared, is_budgeted=True).before(3_000, MAX_TOKENS)
    assert allowance.PATIENCE.total_seconds() <= now < allowance.PATIENCE.total_seconds() + 5


async def test_shared_budgets_are_asked_only_while_there_are_any() -> None:
    shared = Shared()
    one = made(shared=shared)
    one.heard(is_budgeted=True)
    await one.before(3_000, 2_000)
    one.heard(is_budgeted=False)
    await one.before(3_000, 2_000)
    assert len(shared.asked) == 1


async def test_shared_budgets_are_asked_once_when_there_is_news_of_them() -> None:
    shared = Shared()
    one = made(shared=shared)
    await one.before(3_000, 2_000)
    shared.news += 1
    one.heard(is_budgeted=False)  # who answered may have looked before the change
    await one.before(3_000, 2_000)
    await one.before(3_000, 2_000)
    assert len(shared.asked) == 1


async def test_used_tells_the_cost_and_counts_it() -> None:
    one = made(run=Budget(usd=0.1))
    use = Usage(input_tokens=100, output_tokens=2_000, cache_read_input_tokens=1_000, cache_creation_input_tokens=500)
    assert one.used(use, request_bytes=6_000) == cost_microusd(PRICED, use) == 21_550
    # 1,600 tokens of input, all of which might have to be paid anew, and 78,450 microdollars.
    assert await one.before(6_000, MAX_TOKENS) == (78_450 - 4_000) // 10
    assert made(model="offline").used(use, request_bytes=6_000) is None


turns = st.lists(
    st.tuples(
        st.integers(1, 50_000),  # bytes that are added
        st.floats(1.0, 8.0),  # bytes a token, of these
        st.floats(0, 1),  # how much of the output it may have it wants
        st.floats(0, 1),  # how much of its input is in the cache
    ),
    min_size=1,
    max_size=30,
)


@given(
    turns=turns,
    usd=st.none() | st.floats(0, 2),
    tokens=st.none() | st.integers(0, 300_000),
    ratio=st.none() | st.floats(3.0, 8.0),
)
async def test_a_run_stays_within_its_budget(
    turns: Sequence[tuple[int, float, float, float]], usd: float | None, tokens: int | None, ratio: float | None
) -> None:
    """But for what the last turn's input was denser than any before; not at all where that is as dense as was expected.

    ``ratio``: bytes a token, where that is the same all the time.
    """
    budget = Budget(usd=usd, tokens=tokens)
    one = made(run=budget)
    limit_tokens, limit_microusd = tokens, None if usd is None else round(usd * 1_000_000)
    request_bytes = input_tokens = spent_tokens = spent_microusd = 0
    for added, dense, wanted, cached in turns:
        request_bytes += added
        new_tokens = int(added / (ratio or dense))
        try:
            most = await one.before(request_bytes, MAX_TOKENS)
        except BudgetExhaustedError:
            break
        assert 1_024 <= most <= MAX_TOKENS
        old = int(input_tokens * cached)
        input_tokens += new_tokens
        use = Usage(
            output_tokens=int(wanted * most),
            cache_read_input_tokens=old,
            cache_creation_input_tokens=input_tokens - old,
        )
        cost = one.used(use, request_bytes=request_bytes)
        assert cost is not None
        spent_tokens, spent_microusd = spent_tokens + use.total, spent_microusd + cost
        denser = 0 if ratio else max(0, new_tokens - added // 8)
        dearer = worst_microusd(PRICED, input_tokens=denser, output_tokens=0)
        assert dearer is not None
        assert limit_tokens is None or spent_tokens <= limit_tokens + denser
        assert limit_microusd is None or spent_microusd <= limit_microusd + dearer


@given(ratio=st.floats(1.0, 8.0), sizes=st.lists(st.integers(1_000, 50_000), min_size=12, max_size=20))
async def test_the_input_is_estimated_from_above_and_better_with_time(ratio: float, sizes: Sequence[int]) -> None:
    """A conversation that is always as dense is never under-estimated from the second request on."""
    limit = 10**9
    one = made(run=Budget(tokens=limit))
    request_bytes = spent = 0
    for number, size in enumerate(sizes):
        request_bytes += size
        truth = int(request_bytes / ratio)
        estimate = limit - spent - await one.before(request_bytes, limit)
        if number or ratio >= 3:
            assert truth <= estimate + 1
        if number == len(sizes) - 1:
            assert estimate - truth <= 0.25 * size / ratio + 2
        one.used(Usage(input_tokens=truth), request_bytes=request_bytes)
        spent += truth


async def test_a_reply_that_was_broken_off_before_it_told_of_its_input_teaches_nothing() -> None:
    one = made(run=Budget(tokens=50_000))
    assert one.used(Usage(), request_bytes=300_000) == 0
    with pytest.raises(BudgetExhaustedError):
        await one.before(300_100, MAX_TOKENS)

    one.used(Usage(input_tokens=20_000, output_tokens=1), request_bytes=300_000)
    one.used(Usage(), request_bytes=300_100)
    assert await one.before(300_200, MAX_TOKENS) < 50_000 - 20_001 - 20_000, "what was learned before stands"
