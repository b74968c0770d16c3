"""Claude with all fixed for a run but its messages: profile, key, the beginning of its requests, what it may spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from services.agent.model import Claude, Endpoint, Profile, Reply, Request, Watch, encode_request
from services.agent.unstored_use import UnstoredUse
from services.jobs.models import ModelUse, Usage


class Spending(Protocol):
    """Sees to it that no request comes to more than is left; `services.agent.allowance.Allowance`."""

    @property
    def is_shared(self) -> bool:
        """Whether a request that is made now has to be within what others share."""
        ...

    async def before(self, request_bytes: int, max_tokens: int) -> int:
        """How long the reply may be; raises where nothing is left for one."""
        ...

    def used(self, use: Usage, *, request_bytes: int) -> int | None:
        """Count ``use``; its cost in micro-dollars, None where that is not known."""
        ...


@dataclass(frozen=True)
class SoFar:
    """What a run has come to when its attempt begins, and when that has to be over."""

    microusd: int
    """What earlier attempts have cost."""
    turns: int
    """Replies that earlier attempts have stored."""
    until: float | None = None
    """On the monotonic clock. None: for as long as it takes."""


class RunModel:
    def __init__(
        self,
        claude: Claude,
        endpoint: Endpoint,
        profile: Profile,
        *,
        head: bytes,
        spending: Spending,
        unstored: UnstoredUse,
        so_far: SoFar,
    ) -> None:
        """``head``: as ``encode_head`` made it when the run began. ``unstored``: is told of all that is used."""
        self._claude = claude
        self._endpoint = endpoint
        self._profile = profile
        self._head = head
        self._spending = spending
        self._unstored = unstored
        self._turns = so_far.turns
        self._until = so_far.until
        self._use = ModelUse(Usage(), profile.model)
        self.spent_microusd = so_far.microusd

    @property
    def name(self) -> str:
        return self._profile.model

    @property
    def shares_budget(self) -> bool:
        return self._spending.is_shared

    async def __call__(self, messages: Sequence[bytes], watch: Watch) -> Reply:
        """Raises what ``Claude.reply`` raises, and ``BudgetExhaustedError``."""
        asked_bytes = len(self._head) + sum(map(len, messages))

        async def body() -> bytes:
            await self._unstored.store()  # the budgets that are asked now are to know of it
            max_tokens = await self._spending.before(asked_bytes, self._profile.most_tokens)
            return encode_request(self._profile, self._head, messages, max_tokens=max_tokens)

        def thrown_away(void: Reply) -> None:
            if void.usage.total:
                self._unstored.threw_away(self._counted(void, asked_bytes))

        async def reset(reason: str) -> None:
            await watch.on_reset(reason)
            await self._unstored.store()  # not only with the next try: that may be minutes away, or none

        request = Request(body, thrown_away, self._profile.api_version, self._until)
        reply = await self._claude.reply(self._endpoint, request, replace(watch, on_reset=reset))
        self._turns += 1
        self._use = self._counted(reply, asked_bytes)
        self._unstored.replied(self._use, turn=self._turns)
        return reply

    def used(self, reply: Reply) -> ModelUse:
        """What ``reply`` used, which is the last that was asked for; it is counted already."""
        assert reply.usage is self._use.tokens
        return self._use

    def _counted(self, reply: Reply, asked_bytes: int) -> ModelUse:
        # Priced by the name that was asked for: the service answers with a dated one.
        cost = self._spending.used(reply.usage, request_bytes=asked_bytes)
        self.spent_microusd += cost or 0
        return ModelUse(reply.usage, self._profile.model, cost, {**reply.raw_usage, "model": reply.model})
