"""Takes the deliveries that are due and has them done, also those that another gateway took and left."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from http import HTTPStatus

from services.gateway.problems import ProblemError
from services.gateway.webhooks.handling import Handling
from services.jobs.deliveries import Deliveries, Delivery
from services.jobs.errors import JobsError, TooManyQueuedError
from services.runtime.lifecycle import Doorbell
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("gateway.webhooks")

SWEEP_EVERY = timedelta(seconds=2)
LEASE = timedelta(seconds=120)
"""Whoever took a delivery has so long; above ``DEADLINE`` and what it takes to note the end."""
DEADLINE = timedelta(seconds=100)
MOST_AT_ONCE = 8
MOST_ATTEMPTS = 30
"""With the back-off about six hours: so long a forge or its credentials may be away."""
_FIRST_DELAY_SECONDS = 1.0
_MOST_DELAY_SECONDS = 900.0


class Inbox:
    def __init__(self, deliveries: Deliveries, handling: Handling) -> None:
        self._deliveries = deliveries
        self._handling = handling
        self._bell = Doorbell()

    def ring(self) -> None:
        """Something is due now."""
        self._bell.ring()

    async def wait(self) -> None:
        await self._bell.wait(SWEEP_EVERY)

    async def run_once(self) -> None:
        """Do all that is due. Raises ``StoreUnavailableError``."""
        while taken := await self._deliveries.take(most=MOST_AT_ONCE, again=LEASE):
            async with asyncio.TaskGroup() as working:
                for delivery in taken:
                    working.create_task(self._carry_out(delivery), name=f"delivery {delivery.id}")

    async def _carry_out(self, delivery: Delivery) -> None:
        try:
            await self._try(delivery)
        except StoreUnavailableError as error:
            log.warning("a delivery is left for later", delivery=delivery.id, error=str(error))

    async def _try(self, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                await self._handling.handle(delivery)
        except StoreUnavailableError as error:
            await self._later(delivery, str(error))
        except TimeoutError:
            await self._later(delivery, f"it took longer than {DEADLINE.total_seconds():g} s")
        except TooManyQueuedError as error:
            await self._later(delivery, str(error))
        except ProblemError as error:
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                await self._give_up(delivery, error.detail)
            else:
                await self._later(delivery, error.detail)
        except JobsError as error:
            await self._give_up(delivery, str(error))
        except Exception as error:
            log.exception("a delivery failed", delivery=delivery.id, event_name=delivery.event, source=delivery.source)
            await self._later(delivery, f"something went wrong in the server: {type(error).__name__}")
        else:
            await self._deliveries.done(delivery)

    async def _later(self, delivery: Delivery, error: str) -> None:
        if delivery.attempt >= MOST_ATTEMPTS:
            await self._give_up(delivery, error)
            return
        seconds = min(_MOST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** (delivery.attempt - 1))
        log.warning("a delivery is tried again", delivery=delivery.id, in_seconds=seconds, error=error)
        await self._deliveries.defer(delivery, timedelta(seconds=seconds), error=error)

    async def _give_up(self, delivery: Delivery, error: str) -> None:
        log.warning("a delivery came to nothing", delivery=delivery.id, event_name=delivery.event, error=error)
        await self._deliveries.give_up(delivery, error=error)
