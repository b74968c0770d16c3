"""What the Worker API's client may use in a UTC day, and how many sessions it may have at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from http import HTTPStatus

from aiohttp import web

from services.contracts.agents import Budget
from services.contracts.spending import Amount
from services.gateway.auth import CLIENT
from services.gateway.context import Gateway, gateway_of
from services.gateway.dialects.worker.models import iso_milliseconds, now
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.dialects.worker.sessions import SESSION_KEY
from services.gateway.problems import RETRY_AFTER_SECONDS, ProblemError
from services.jobs.models import Client


@dataclass(frozen=True)
class Standing:
    used: Amount
    """Today, in UTC."""
    most: Budget
    """A day; both of it are set."""
    sessions: int
    most_sessions: int

    @property
    def tokens_left(self) -> int:
        return max(0, (self.most.tokens or 0) - self.used.tokens)

    @property
    def usd_left(self) -> float:
        return round(max(0.0, (self.most.usd or 0.0) - self.used.usd), 6)

    @property
    def is_spent(self) -> bool:
        """Whether nothing more can be done today."""
        return self.tokens_left == 0 or self.usd_left == 0

    @property
    def reason(self) -> str | None:
        """Why no session may be started; None: one may."""
        if self.tokens_left == 0:
            return f"the daily quota of {self.most.tokens:,} tokens is used up"
        if self.usd_left == 0:
            return f"the daily quota of {self.most.usd:g} USD is used up"
        if self.sessions >= self.most_sessions:
            return f"{self.sessions} sessions are active, and at most {self.most_sessions} may be"
        return None


class Quota:
    """What is left of the limits that the client was made with. ``most_sessions``: where those say nothing else."""

    def __init__(self, settings: ServiceSettings, *, most_sessions: int) -> None:
        self._settings = settings
        self.most_sessions = most_sessions

    async def check(self, request: web.Request) -> None:
        """Raises ``ProblemError``: 429 where no session may be started now."""
        standing = await self.standing(gateway_of(request), request[CLIENT])
        if standing.reason is None:
            return
        if standing.is_spent:
            free = _next_midnight()
            when, seconds = f"at {iso_milliseconds(free)}", (free - now()).total_seconds()
        else:
            when, seconds = "when one of them ends", float(RETRY_AFTER_SECONDS)
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"{standing.reason}; there is room again {when}",
            headers={"Retry-After": str(max(1, math.ceil(seconds)))},
        )

    async def standing(self, gateway: Gateway, client: Client) -> Standing:
        """Raises ``StoreUnavailableError``."""
        today = now().date()
        report = await gateway.usage.report(client, of=None, first_day=today, last_day=today)
        sessions = await gateway.measuring.under_way(client, marked=SESSION_KEY)
        limits = await gateway.limits.read(client)
        return Standing(
            used=report.total,
            most=await self._most(gateway, client),
            sessions=sessions,
            most_sessions=limits.client.by_name.get(client.name, self.most_sessions),
        )

    async def _most(self, gateway: Gateway, client: Client) -> Budget:
        """As the budgets have it, which runs obey; an operator may have changed them."""
        set_ones = (await gateway.budgets.read(client)).client_day.by_name.get(client.name, Budget())
        wanted = self._settings.daily
        return Budget(
            tokens=wanted.tokens if set_ones.tokens is None else set_ones.tokens,
            usd=wanted.usd if set_ones.usd is None else set_ones.usd,
        )


def _next_midnight() -> datetime:
    return datetime.combine(now().date() + timedelta(days=1), time.min, tzinfo=UTC)
