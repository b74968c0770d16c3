"""How fast the whole fleet may ask one forge with one credential: its pauses, and a rate for new pull requests."""

from __future__ import annotations

from dataclasses import dataclass

from services.contracts.text import storable
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Database, Statements

_STATEMENTS = Statements(SQL / "forge_pacing.sql")
_SECONDS = 60
_MAX_PAUSE_SECONDS = 3_600.0
_BURST_SHARE = 4
"""A quarter of a minute's pull requests may come at once."""


@dataclass(frozen=True)
class Wait:
    """``seconds``: before the forge may be asked. ``reason``: in words for the user."""

    seconds: float
    reason: str


class ForgePacing:
    def __init__(self, database: Database, scope: str, *, creations_per_minute: float) -> None:
        """``scope``: names forge and credential without telling them. ``creations_per_minute``: of pull requests."""
        self._database = database
        self._scope = scope
        self._per_second = creations_per_minute / _SECONDS
        self._burst = max(1.0, creations_per_minute / _BURST_SHARE)

    async def before(self, *, creates: bool) -> Wait | None:
        """What a request has to wait for; None: it may go. ``creates``: it opens a pull request, which is then counted.

        Raises ``StoreUnavailableError``.
        """

        async def work(connection: Connection) -> Wait | None:
            row = await _STATEMENTS.row(
                connection,
                "before",
                scope=self._scope,
                creates=creates,
                per_second=self._per_second,
                burst=self._burst,
            )
            assert row is not None
            if row["is_taken"]:
                await _STATEMENTS.execute(connection, "take", scope=self._scope)
            if row["paused_seconds"] > 0:
                return Wait(row["paused_seconds"], row["reason"])
            if row["short_seconds"] > 0:
                return Wait(row["short_seconds"], "as many pull requests were opened in this minute as may be")
            return None

        return await self._database.in_transaction(work)

    async def pause(self, seconds: float, reason: str) -> None:
        """Nobody asks the forge for ``seconds``, at most an hour. Raises ``StoreUnavailableError``."""

        async def work(connection: Connection) -> None:
            await _STATEMENTS.execute(
                connection,
                "pause",
                scope=self._scope,
                burst=self._burst,
                seconds=min(seconds, _MAX_PAUSE_SECONDS),
                reason=storable(reason),
            )

        await self._database.in_transaction(work)
