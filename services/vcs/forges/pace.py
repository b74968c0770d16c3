"""The pace of the whole fleet towards a forge, kept in Postgres."""

from __future__ import annotations

from services.jobs.forge_pacing import ForgePacing
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger
from services.vcs.errors import ForgePausedError

log = logger("vcs.forges")

_STORE_AWAY_SECONDS = 2.0


class FleetPace:
    def __init__(self, pacing: ForgePacing) -> None:
        self._pacing = pacing

    async def before(self, *, creates: bool) -> None:
        """Raises ``ForgePausedError``, also where nobody can say whether the forge may be asked."""
        try:
            wait = await self._pacing.before(creates=creates)
        except StoreUnavailableError as error:
            words = f"the forge was not asked: its limits cannot be looked up ({error})"
            raise ForgePausedError(words, seconds=_STORE_AWAY_SECONDS) from error
        if wait is not None:
            raise ForgePausedError(
                f"the forge is not asked for {wait.seconds:.0f} s: {wait.reason}", seconds=wait.seconds
            )

    async def pause(self, seconds: float, reason: str) -> None:
        """Where it cannot be kept, only this request waits; the next one is refused by the forge again."""
        try:
            await self._pacing.pause(seconds, reason)
        except StoreUnavailableError as error:
            log.warning("a pause of the forge could not be told to the fleet", seconds=seconds, error=str(error))
