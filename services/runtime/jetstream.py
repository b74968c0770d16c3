"""NATS for every service: one connection that comes back by itself, and the streams set up again after a wipe.

A message is a doorbell: whoever publishes has already written to Postgres what the message asks for.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from nats.js.errors import Error as JetStreamError

from services.runtime.nats_client import Client, Outgoing
from services.runtime.pulling import ConsumerBrokenError, PullConsumer
from services.runtime.streams import STREAMS
from services.runtime.telemetry import logger

__all__ = [
    "TRANSIENT",
    "Bus",
    "BusUnavailableError",
    "Listening",
    "Message",
    "NobodyListensError",
    "Outgoing",
    "StreamPosition",
    "Tailed",
    "incarnation_of",
]

log = logger("runtime.jetstream")

Message: TypeAlias = Msg

PUBLISH_SECONDS = 2.0
RETRY_SECONDS = 0.5
_FLUSH_SECONDS = 2
READ_SECONDS = 1.0
"""How long what a stream is known to have may take to come, before it is asked whether it still has it."""
_NO_STORAGE = 10_047
"""JetStream's word for "insufficient storage resources available"."""
_LEAST_STREAM_BYTES = 16 * 1024**2
ACK_WAIT = timedelta(seconds=10)


class BusUnavailableError(Exception):
    """NATS cannot be reached or did not answer in time: whether the message arrived is unknown."""


class NobodyListensError(BusUnavailableError):
    """NATS says so: nobody has heard the message, or will."""


_FAILURES = (nats.errors.Error, JetStreamError, OSError, TimeoutError)


class Bus:
    """One process's connection to NATS."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._client = Client()
        self._jetstream: JetStreamContext | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._connections = 0
        self._consumers: set[PullConsumer] = set()
        self._refused = ""
        """Why the last publish failed; empty: it did not."""
        self._denied = ""
        """What the server has last not let this connection do; empty: nothing."""

    @property
    def is_connected(self) -> bool:
        """Whether NATS could be spoken to just now."""
        return self._ready.is_set() and self._client.is_connected

    async def start(self, *, wait: timedelta = timedelta(seconds=3)) -> None:
        """Begin to connect; return once connected, or after ``wait`` with the attempts going on behind."""
        self._connecting = asyncio.create_task(self._connect(), name="nats connect")
        await asyncio.wait([self._connecting], timeout=wait.total_seconds())
        if self._connecting.done():
            self._connecting.result()
        else:
            log.warning("NATS is away; going on without it until it comes")

    async def _connect(self) -> None:
        await self._client.connect(
            self._url,
            name=self._name,
            max_reconnect_attempts=-1,
            # Any number of seconds will do, whatever its annotation says.
            reconnect_time_wait=0.25,  # type: ignore[arg-type]
            connect_timeout=2,
            ping_interval=2,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
        )
        self._jetstream = self._client.jetstream(timeout=PUBLISH_SECONDS)
        while not await self._set_up_streams():  # noqa: ASYNC110  a server sets no event of ours
            await asyncio.sleep(RETRY_SECONDS)
        self._ready.set()

    async def _on_error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            # Its rights are older, or newer, than this code: what it hears and says is lost without any other word.
            self._denied = _words(error)
            log.warning("NATS denied this", error=self._denied)
        else:
            log.debug("nats", error=_words(error))

    async def _on_disconnect(self) -> None:
        self._ready.clear()
        self._connections += 1
        if not self._client.is_closed:
            log.warning("NATS connection lost; reconnecting")

    async def _on_reconnect(self) -> None:
        log.info("NATS connection is back")
        self._refused = self._denied = ""
        for consumer in self._consumers:
            consumer.interrupt("the server was gone in between")  # and the request under way with it
        # Its storage may have been wiped: nothing is to be published before the streams are there again.
        while self._client.is_connected and not await self._set_up_streams():  # noqa: ASYNC110  a server
            await asyncio.sleep(RETRY_SECONDS)
        self._ready.set()

    async def _set_up_streams(self) -> bool:
        assert self._jetstream is not None
        try:
            for config in STREAMS:
                await self._set_up_stream(config)
        except _FAILURES as error:
            log.warning("streams could not be set up", error=_words(error))
            return False
        return True

    async def _set_up_stream(self, config: StreamConfig) -> None:
        """Where the disk has no room for what it may keep at most, let it keep half of that, or half of the half."""
        assert self._jetstream is not None
        while True:
            try:
                await self._jetstream.add_stream(config)
            except APIError as error:
                most = config.max_bytes or 0
                if error.err_code == _NO_STORAGE and most > _LEAST_STREAM_BYTES:
                    config = config.evolve(max_bytes=most // 2)
                    continue
                await self._jetstream.update_stream(config)
            return

    async def _mend(self, error: BaseException) -> None:
        """Make a stream again that somebody deleted while we were connected."""
        if isinstance(error, NotFoundError | NoStreamResponseError) and self._client.is_connected:
            await self._set_up_streams()

    async def close(self) -> None:
        """Flush and close within 2 s."""
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        with suppress(*_FAILURES):
            async with asyncio.timeout(PUBLISH_SECONDS / 2):
                if self._client.is_connected:
                    await self._client.flush(timeout=1)
        # By itself: over a line that broke the flush fails, and the client would reconnect for ever.
        with suppress(*_FAILURES):
            async with asyncio.timeout(PUBLISH_SECONDS / 2):
                await self._client.close()

    def _context(self) -> JetStreamContext:
        if self._jetstream is None or not self.is_connected:
            raise BusUnavailableError("not connected to NATS")
        return self._jetstream

    @property
    def most_bytes(self) -> int:
        """Of a message's data, as the server said when it was connected to last: one with more is not sent."""
        return self._client.most_bytes

    async def publish(self, message: Outgoing) -> None:
        """Store ``message`` in its stream, waiting for JetStream's word; raises ``BusUnavailableError``."""
        await self.publish_all([message])

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        """Store ``messages`` in order, all in flight together; raises ``BusUnavailableError`` if any failed."""
        context = self._context()
        try:
            self._client.refuse_oversized(messages)
            async with asyncio.timeout(PUBLISH_SECONDS):
                waiting = [await context.publish_async(m.subject, m.data, headers=m.all_headers) for m in messages]
                await asyncio.gather(*waiting)
            self._refused = ""
        except _FAILURES as error:
            self._refused = _words(error)
            await self._mend(error)
            raise BusUnavailableError(f"publish: {self._refused}") from error

    async def publish_in_order(self, messages: Sequence[Outgoing]) -> None:
        """Store ``messages`` in this order; raises ``BusUnavailableError`` if any may be missing.

        The server takes what one connection sends in the order it was sent: that it has the last one, over the same
        connection, says that it has them all, without an answer for each.
        """
        context, connection = self._context(), self._connections
        *others, last = messages
        try:
            self._client.refuse_oversized(messages)
            async with asyncio.timeout(PUBLISH_SECONDS):
                if others:
                    await self._client.publish_many(others)
                await context.publish(last.subject, last.data, headers=last.all_headers)
        except _FAILURES as error:
            self._refused = _words(error)
            await self._mend(error)
            raise BusUnavailableError(f"publish: {self._refused}") from error
        if connection != self._connections:
            raise BusUnavailableError("publish: the connection was replaced in between")
        self._refused = ""

    async def publish_unstored(self, subject: str, data: bytes) -> None:
        """Send ``data`` to a stream's subject without waiting for JetStream's word: it may be lost."""
        with suppress(*_FAILURES):
            if self._client.is_connected:
                await self._client.publish(subject, data)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Have a work queue forget ``messages``; raises nats-py's errors where NATS is away, and they come again."""
        await self._client.acknowledge(messages)

    async def ring(self, subject: str, data: bytes = b"") -> None:
        """Send over core NATS: heard by whoever listens now, lost otherwise. Never fails."""
        await self.publish_unstored(subject, data)

    async def tell(self, subject: str, data: bytes) -> None:
        """Send over core NATS to a process that answers each message with nothing, at once.

        Raises ``BusUnavailableError`` where it may not have been heard; ``NobodyListensError``, without delay, where it
        was not.
        """
        try:
            await self._client.request(subject, data, timeout=PUBLISH_SECONDS)
        except NoRespondersError as error:
            raise NobodyListensError(f"tell {subject}: {_words(error)}") from error
        except _FAILURES as error:
            raise BusUnavailableError(f"tell {subject}: {_words(error)}") from error

    async def listen(self, subject: str, callback: Callable[[Message], Awaitable[None]]) -> Listening:
        """Hear ``subject`` over core NATS for as long as the process lives, from when NATS is there on: whoever sends
        something once this has returned is heard.
        """
        await self._ready.wait()
        listening = Listening(await self._client.subscribe(subject, cb=callback))
        with suppress(*_FAILURES):  # it is gone again, and is told of the subject when it is back
            await self._client.flush(timeout=_FLUSH_SECONDS)
        return listening

    async def pull(
        self, stream: str, subject: str, durable: str, *, batch: Callable[[], Awaitable[int]]
    ) -> AsyncIterator[list[Msg]]:
        """Yield messages of a work queue as they come, for ever; each must be acknowledged by who takes it.

        ``batch``: how many may come now, ≥ 1; awaited before each request, so that it can hold the next one back.
        The consumer is made where it is missing, and made again where NATS lost it.
        """
        config = ConsumerConfig(
            name=durable,
            durable_name=durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT.total_seconds(),
            max_deliver=-1,  # a bound would strand the message; attempts are counted in Postgres
            max_ack_pending=10_000,
            filter_subject=subject,
        )
        while True:
            await self._ready.wait()
            try:
                async with aclosing(self._batches(stream, config, batch)) as batches:
                    async for messages in batches:
                        yield messages
            except _FAILURES as error:
                log.debug("consumer will be made again", durable=durable, error=_words(error))
                await asyncio.sleep(RETRY_SECONDS)
                await self._mend(error)

    async def _batches(
        self, stream: str, config: ConsumerConfig, wanted: Callable[[], Awaitable[int]]
    ) -> AsyncGenerator[list[Msg], None]:
        """Make the consumer where it is missing, and yield from it until it breaks."""
        assert self._jetstream is not None
        assert config.name is not None
        await self._jetstream.add_consumer(stream, config)
        with self._used(PullConsumer(self._client, stream, config.name)) as consumer:
            async for messages in consumer.batches(wanted):
                yield messages

    @contextmanager
    def _used(self, consumer: PullConsumer) -> Iterator[PullConsumer]:
        """``consumer``, which is told where the connection is replaced."""
        self._consumers.add(consumer)
        try:
            yield consumer
        finally:
            self._consumers.discard(consumer)

    async def tail(self, stream: str, subject: str, *, after: int | None = None) -> AsyncGenerator[Tailed, None]:
        """Yield every message of ``stream`` on ``subject`` in order, for ever.

        ``after``: the stream sequence to start behind; None: only what comes from now on.
        When NATS was wiped, goes on with the new stream from its start, which has another incarnation.
        """
        incarnation = ""
        while True:
            await self._ready.wait()
            try:
                assert self._jetstream is not None
                info = await self._jetstream.stream_info(stream)
                current = incarnation_of(info.created)
                if incarnation and current != incarnation:
                    after = 0
                incarnation = current
                # A place beyond the end is one that a power cut has taken back: wait there and nothing comes.
                after = info.state.last_seq if after is None else min(after, info.state.last_seq)
                async with aclosing(self._batches(stream, _tail_config(subject, after), _tail_batch)) as batches:
                    async for messages in batches:
                        for message in messages:
                            tailed = _tailed(message, incarnation)
                            after = tailed.sequence
                            yield tailed
            except _FAILURES as error:
                log.debug("tail will be made again", stream=stream, error=_words(error))
                await asyncio.sleep(RETRY_SECONDS)
                await self._mend(error)

    async def stream_position(self, stream: str) -> StreamPosition:
        """Where ``stream`` stands; raises ``BusUnavailableError``."""
        try:
            info = await self._context().stream_info(stream)
        except _FAILURES as error:
            raise BusUnavailableError(f"stream {stream}: {_words(error)}") from error
        return StreamPosition(incarnation_of(info.created), info.state.first_seq, info.state.last_seq)

    async def read(self, stream: str, subject: str, *, after: int, until: int) -> AsyncIterator[Tailed]:
        """Yield what ``stream`` keeps on ``subject`` with sequences in (after, until].

        Raises ``BusUnavailableError``.
        """
        context = self._context()
        config = _tail_config(subject, after)
        try:
            info = await context.stream_info(stream)
            waiting = (await context.add_consumer(stream, config)).num_pending or 0
            while waiting:
                has_come = False
                async with aclosing(self._read(stream, str(config.name))) as messages:
                    async for message in messages:
                        if message.metadata.sequence.stream > until:
                            return
                        yield _tailed(message, incarnation_of(info.created))
                        has_come, waiting = True, message.metadata.num_pending
                if waiting:  # what had waited may have been evicted, and then it never comes
                    waiting = (await context.consumer_info(stream, str(config.name))).num_pending or 0
                    if waiting and not has_come:
                        raise ConsumerBrokenError("what waits does not come")
        except _FAILURES as error:
            raise BusUnavailableError(f"read {stream}: {_words(error)}") from error
        finally:
            with suppress(*_FAILURES):  # it would go by itself in half a minute
                await context.delete_consumer(stream, str(config.name))

    async def _read(self, stream: str, name: str) -> AsyncGenerator[Msg, None]:
        """What waits on the consumer ``name``; ends with the last of it, or where nothing has come for a while."""
        with self._used(PullConsumer(self._client, stream, name, linger_seconds=READ_SECONDS)) as consumer:
            async with aclosing(consumer.batches(_tail_batch, until_quiet=True)) as batches:
                async for messages in batches:
                    for message in messages:
                        yield message
                    if messages[-1].metadata.num_pending == 0:
                        return

    async def check(self) -> str:
        """For `/health`."""
        if not self.is_connected:
            return "not connected"
        if self._denied:
            return f"connected, but without a right that is needed: {self._denied}"
        return f"connected, but the last publish failed: {self._refused}" if self._refused else "ok"


class Listening:
    """A subject that is heard."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def stop(self) -> None:
        """Hear nothing more but what is on its way, and return when that was heard; whoever asks behind it is told that
        nobody listens. Never fails.
        """
        with suppress(*_FAILURES):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._subscription.drain()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Tailed:
    """One message of a stream: ``sequence`` counts within ``incarnation`` of the stream."""

    subject: str
    data: bytes
    sequence: int
    incarnation: str
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class StreamPosition:
    incarnation: str
    first_sequence: int
    last_sequence: int


def incarnation_of(created: object) -> str:
    """Name a stream by when it was made: one that was wiped and made again counts from 1 under another name."""
    return f"{int(created.timestamp() * 1000):x}" if hasattr(created, "timestamp") else str(created)


def _tailed(message: Msg, incarnation: str) -> Tailed:
    return Tailed(message.subject, message.data, message.metadata.sequence.stream, incarnation, message.headers)


async def _tail_batch() -> int:
    return 256


def _tail_config(subject: str, after: int) -> ConsumerConfig:
    return ConsumerConfig(
        name=f"tail-{secrets.token_hex(8)}",
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        ack_policy=AckPolicy.NONE,
        filter_subject=subject,
        inactive_threshold=30,
        mem_storage=True,
        max_deliver=1,
    )


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


TRANSIENT: tuple[type[BaseException], ...] = (BusUnavailableError,)
