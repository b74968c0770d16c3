"""Agents as the scheduler sees them: a node with places, and somebody who hears what is given to it, or does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import WorkOrders
from services.jobs.leases import Node, tell_seen
from services.jobs.models import ClaimedRun
from services.jobs.orders import Order
from services.runtime.jetstream import Bus, Message
from tests.integration.jobs.domain import Domain


async def let_live(domain: Domain, name: str, capacity: int) -> None:
    """As the node's heartbeat does."""
    async with domain.database.connection() as connection:
        await tell_seen(connection, Node(name, "agent", capacity=capacity))


@dataclass
class Agent:
    """Keeps what it is told; ``takes_up`` it first, and ``answers`` it, where that is said of it."""

    name: str
    domain: Domain
    answers: bool = True
    takes_up: bool = False
    messages: list[WorkOrders] = field(default_factory=list)
    runs: list[ClaimedRun] = field(default_factory=list)
    """What it has taken up."""
    _unanswered: list[Message] = field(default_factory=list)

    async def listen(self, bus: Bus, capacity: int) -> None:
        """Hear orders from now on, and live."""
        await bus.listen(subjects.orders(self.name), self._on_orders)
        await let_live(self.domain, self.name, capacity)

    @property
    def ordered(self) -> list[Order]:
        return [order for message in self.messages for order in orders_in(message)]

    async def _on_orders(self, message: Message) -> None:
        told = WorkOrders.FromString(message.data)
        if self.takes_up:
            for claim in await self.domain.running.claim(orders_in(told)):
                self.runs.append(await self.domain.running.take_up(claim))
        self.messages.append(told)
        self._unanswered.append(message)
        if self.answers:
            await self.answer()

    async def answer(self) -> None:
        """Answer what was not answered yet."""
        while self._unanswered:
            await self._unanswered.pop().respond(b"")


def orders_in(message: WorkOrders) -> list[Order]:
    return [Order(UUID(order.run_id), UUID(bytes=order.token)) for order in message.orders]
