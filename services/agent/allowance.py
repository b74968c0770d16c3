"""How much output the next request may ask for, so that a run stays within its budgets; counts what it has used.

One per attempt. No I/O of its own: budgets that the run shares with others are asked for through ``reserve``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from time import monotonic

from services.agent.model.prices import cost_microusd, most_output_tokens, worst_microusd
from services.contracts.agents import Budget
from services.contracts.spending import microusd as microusd_of
from services.contracts.spending import usd as usd_of
from services.jobs.budgeting import UNPRICED, Refusal, Room
from services.jobs.models import Spent, Usage

LEAST_OUTPUT_TOKENS = 1_024
"""A reply cut shorter than this is not worth its input."""
PATIENCE = timedelta(minutes=5)
"""How long a budget that others' requests may free again is waited for: longer than most turns take."""
_FIRST_BYTES_A_TOKEN = 3.0
_FEWEST_BYTES_A_TOKEN = 1.0
_MARGIN = 0.9
_RISE = 0.25
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.25, 5.0


class BudgetExhaustedError(Exception):
    """A budget leaves too little for another request; the words name it, its size and what is left."""


class Allowance:
    def __init__(
        self,
        *,
        model: str,
        spent: Spent,
        run_budget: Budget | None,
        job_budget: Budget | None,
        allow_unpriced: bool,
        is_budgeted: bool,
        reserve: Callable[..., Awaitable[Refusal | None]],
        news: Callable[[], int],
        news_known: int,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``spent``: by earlier attempts of the run. ``is_budgeted``: as in `ClaimedRun`.

        ``reserve``: ``Budgeting.reserve`` with hold and client filled in; called with `tokens`, `microusd` and
        `job_budget`. ``news``: how often budgets were changed so far; ``news_known``: when ``is_budgeted`` was
        found. ``pause``: waits for so many seconds.
        """
        self._model = model
        self._spent = spent
        self._run_budget = run_budget or Budget()
        self._job_budget = job_budget
        self._allow_unpriced = allow_unpriced
        self._is_budgeted = is_budgeted
        self._reserve = reserve
        self._news = news
        self._news_known = news_known
        self._pause = pause
        self._input = _InputEstimate()

    @property
    def is_shared(self) -> bool:
        """Whether a budget that others share holds, or may, as budgets were changed since that was found."""
        return self._is_budgeted or self._news() != self._news_known or self._job_budget not in (None, Budget())

    async def before(self, request_bytes: int, max_tokens: int) -> int:
        """How many tokens of output a request of so many bytes may ask for: ``max_tokens``, or what the budgets leave.

        Raises ``BudgetExhaustedError`` where that is less than 1,024 (or ``max_tokens``, if smaller), and what
        ``reserve`` raises. Waits up to 5 minutes where only the requests of others, under way, are in between.
        """
        input_tokens = self._input.of(request_bytes)
        least = min(max_tokens, LEAST_OUTPUT_TOKENS)
        left = self._left_of_run()
        most = self._most(left, input_tokens, max_tokens)
        if most < least:
            raise BudgetExhaustedError(self._run_words(left, input_tokens + least, self._worst(input_tokens, least)))
        if self.is_shared:
            self._news_known = self._news()
            return await self._reserved(input_tokens, most, least)
        return most

    def used(self, use: Usage, *, request_bytes: int) -> int | None:
        """Count what the reply to a request of so many bytes used, as far as that is known; return its cost in
        microdollars, None: no price.
        """
        if input_tokens := use.total - use.output_tokens:  # none: it was broken off before it told of its input
            self._input.learn(request_bytes, input_tokens)
        cost = cost_microusd(self._model, use)
        self._spent = Spent(self._spent.tokens + use.total, self._spent.microusd + (cost or 0))
        return cost

    def heard(self, *, is_budgeted: bool) -> None:
        """What a checkpoint's answer tells."""
        self._is_budgeted = is_budgeted

    def _left_of_run(self) -> Room:
        """Raises ``BudgetExhaustedError`` where the budget is in USD and the model may not be used under one."""
        budget = self._run_budget
        if budget.usd is not None and not self._allow_unpriced and self._worst(0, 0) is None:
            raise BudgetExhaustedError(
                f"the run's budget is in USD, and the model {self._model} is unpriced: no price is known; {UNPRICED}"
            )
        return Room(
            None if budget.tokens is None else budget.tokens - self._spent.tokens,
            None if budget.usd is None else microusd_of(budget.usd) - self._spent.microusd,
        )

    def _most(self, left: Room, input_tokens: int, max_tokens: int) -> int:
        """The most output up to ``max_tokens`` that ``left`` holds beside the input; negative: not even that."""
        most = max_tokens
        if left.tokens is not None:
            most = min(most, left.tokens - input_tokens)
        if left.microusd is not None:
            if left.microusd <= 0:
                return -1
            affordable = most_output_tokens(self._model, input_tokens=input_tokens, microusd=left.microusd)
            most = most if affordable is None else min(most, affordable)
        return most

    async def _reserved(self, input_tokens: int, wished: int, least: int) -> int:
        most, wait_seconds = wished, _FIRST_WAIT_SECONDS
        until = monotonic() + PATIENCE.total_seconds()
        while True:
            refusal = await self._reserve(
                tokens=input_tokens + most, microusd=self._worst_known(input_tokens, most), job_budget=self._job_budget
            )
            if refusal is None:
                return most
            if (fitting := self._most(refusal.left, input_tokens, most)) >= least:
                most = fitting  # unless somebody else comes first: then it is refused again
                continue
            if self._most(refusal.left_at_most, input_tokens, wished) < least or monotonic() >= until:
                raise BudgetExhaustedError(refusal.words)
            await self._pause(wait_seconds)
            most, wait_seconds = wished, min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)

    def _worst(self, input_tokens: int, output_tokens: int) -> int | None:
        return worst_microusd(self._model, input_tokens=input_tokens, output_tokens=output_tokens)

    def _worst_known(self, input_tokens: int, output_tokens: int) -> int | None:
        """None: no budget in USD may let this model pass."""
        worst = self._worst(input_tokens, output_tokens)
        return 0 if worst is None and self._allow_unpriced else worst

    def _run_words(self, left: Room, tokens: int, microusd: int | None) -> str:
        if left.tokens is not None and tokens > left.tokens:
            size, rest = f"{self._run_budget.tokens:,} tokens", f"{max(0, left.tokens):,} tokens"
            wanted = f"{tokens:,} tokens"
        else:
            size, rest = f"{self._run_budget.usd:.6g} USD", f"{usd_of(max(0, left.microusd or 0)):.6g} USD"
            wanted = f"{usd_of(microusd or 0):.6g} USD"
        return (
            f"the run's budget is {size}: {rest} are left of it, and the next request may come to {wanted}; retry the "
            "run with a higher `runBudget` to go on"
        )


class _InputEstimate:
    """Tokens of a request's input, from its bytes: exact as far as the last request went, with a margin behind that."""

    def __init__(self) -> None:
        self._bytes_a_token = _FIRST_BYTES_A_TOKEN
        self._last_bytes = 0
        self._last_tokens = 0

    def of(self, request_bytes: int) -> int:
        added = max(0, request_bytes - self._last_bytes)
        return self._last_tokens + math.ceil(added / self._bytes_a_token)

    def learn(self, request_bytes: int, input_tokens: int) -> None:
        """A request of so many bytes had so many tokens: fewer bytes a token are believed at once, more slowly."""
        added_bytes, added_tokens = request_bytes - self._last_bytes, input_tokens - self._last_tokens
        if added_bytes > 0 and added_tokens > 0:
            seen = max(_FEWEST_BYTES_A_TOKEN, _MARGIN * added_bytes / added_tokens)
            step = 1.0 if seen < self._bytes_a_token else _RISE
            self._bytes_a_token += step * (seen - self._bytes_a_token)
        self._last_bytes, self._last_tokens = request_bytes, input_tokens
