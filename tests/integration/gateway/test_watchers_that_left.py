"""An event that comes when its watcher has just left: it is that watcher's loss alone."""

import asyncio
from typing import cast

import pytest
import uvloop

from services.gateway.events.audience import Audience
from services.gateway.events.feed import EventFeed
from services.gateway.events.live import Frame, LiveEvent
from services.gateway.events.sse import _Socket
from services.gateway.events.subscription import Subscription, SubscriptionEndedError


class Follows:
    """A feed that could send anything at once."""

    def follows(self, _: LiveEvent) -> bool:
        return True

    def place(self, event: LiveEvent) -> Frame:
        return event.frame(event.number)


async def _is_taken_after_the_end() -> bool:
    accepted: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    async def take_in(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport = cast("asyncio.Transport", writer.transport)
        transport.abort()
        await writer.wait_closed()
        accepted.set_result(transport)

    async with await asyncio.start_server(take_in, "127.0.0.1", 0) as server:
        _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(30):
            transport = await accepted
        client.close()
        event = LiveEvent(1, "log", b"{}", "-", 1)
        return _Socket(cast("EventFeed", Follows()), transport, is_chunked=True).take(event)


def test_nothing_is_written_to_a_connection_that_was_closed() -> None:
    """In the gateway's own loop: asyncio's lets one write into the void, uvloop's raises, which ended the hub."""
    assert uvloop.run(_is_taken_after_the_end()) is False


class Broken:
    def take(self, event: LiveEvent) -> bool:
        raise RuntimeError(f"cannot take {event.number}")

    def tick(self) -> bool:
        raise RuntimeError("cannot tick")


@pytest.mark.parametrize("by", ["an event", "the clock"])
async def test_a_watcher_that_fails_is_cut_off_and_the_others_hear_all(by: str) -> None:
    audience, event = Audience(), LiveEvent(1, "log", b"{}", "-", 1)
    broken, other = Subscription(), Subscription()
    audience.subscriptions = {broken, other}
    waiting = [asyncio.create_task(each.next()) for each in (broken, other)]
    await asyncio.sleep(0)
    broken.sink = Broken()
    if by == "the clock":
        broken.tick()
    audience.offer(event)
    async with asyncio.timeout(30):
        with pytest.raises(SubscriptionEndedError):
            await waiting[0]
        assert await waiting[1] == event
