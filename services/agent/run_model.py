"""Claude with all fixed for a run but its messages: profile, key, the beginning of its requests, what it may spend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.agent.model import Claude, Endpoint, Profile, Reply, Watch, encode_request
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


class RunModel:
    def __init__(
        self,
        claude: Claude,
        endpoint: Endpoint,
        profile: Profile,
        *,
        head: bytes,
        spending: Spending,
        spent_microusd: int,
    ) -> None:
        """``head``: as ``encode_head`` made it when the run began. ``spent_microusd``: by earlier attempts."""
        self._claude = claude
        self._endpoint = endpoint
        self._profile = profile
        self._head = head
        self._spending = spending
        self._asked_bytes = 0
        self.spent_microusd = spent_microusd

    @property
    def name(self) -> str:
        return self._profile.model

    @property
    def shares_budget(self) -> bool:
        return self._spending.is_shared

    async def __call__(self, messages: Sequence[bytes], watch: Watch) -> Reply:
        """Raises what ``Claude.reply`` raises, and ``BudgetExhaustedError``."""
        self._asked_bytes = len(self._head) + sum(map(len, messages))
        max_tokens = await self._spending.before(self._asked_bytes, self._profile.most_tokens)
        body = encode_request(self._profile, self._head, messages, max_tokens=max_tokens)
        return await self._claude.reply(self._endpoint, body, watch)

    def used(self, reply: Reply) -> ModelUse:
        # Priced by the name that was asked for: the service answers with a dated one.
        cost = self._spending.used(reply.usage, request_bytes=self._asked_bytes)
        self.spent_microusd += cost or 0
        return ModelUse(reply.usage, self._profile.model, cost, {**reply.raw_usage, "model": reply.model})
