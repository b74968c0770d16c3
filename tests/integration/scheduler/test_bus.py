"""Whoever pulls or tails a stream goes on after nats-server was killed, with its store or without it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.nats import binary
from quarterdeck.stack.ports import free_ports
from services.contracts import subjects
from services.contracts.words import EventKind, Queue
from services.runtime import jetstream
from services.runtime.jetstream import (
    Bus,
    BusUnavailableError,
    Message,
    NobodyListensError,
    Outgoing,
    Tailed,
    _tail_batch,
)
from tests.integration.scheduler.conftest import Restart
from tests.integration.waiting import until

WORK = subjects.work(Queue.PUBLISH)
ORDERS = subjects.orders("agent-1")
LOG = subjects.event("job", "run", EventKind.LOG)


@asynccontextmanager
async def pulling(bus: Bus) -> AsyncIterator[list[bytes]]:
    """What was pulled and acknowledged so far."""
    pulled: list[bytes] = []

    async def ten() -> int:
        return 10

    async def pull() -> None:
        consumer = subjects.work_consumer(Queue.PUBLISH)
        async for messages in bus.pull(subjects.WORK_STREAM, WORK, consumer, batch=ten):
            for message in messages:
                pulled.append(message.data)
                await message.ack()

    async with background(pull()):
        yield pulled


@asynccontextmanager
async def tailing(bus: Bus, *, after: int | None = None) -> AsyncIterator[list[Tailed]]:
    tailed: list[Tailed] = []

    async def tail() -> None:
        async for message in bus.tail(subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=after):
            tailed.append(message)  # noqa: PERF401  seen while it goes on: it has no end

    async with background(tail()):
        yield tailed


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("wiped", [False, True])
async def test_pulling_goes_on_after_the_server_was_killed(bus: Bus, restart: Restart, wiped: bool) -> None:
    async with pulling(bus) as pulled:
        await bus.publish(Outgoing(WORK, b"before", "1"))
        await until(lambda: b"before" in pulled)

        await restart(wiped=wiped)
        await bus.publish(Outgoing(WORK, b"after", "2"))
        await until(lambda: b"after" in pulled)


async def test_what_was_stored_is_pulled_after_the_server_was_killed(bus: Bus, restart: Restart) -> None:
    await bus.publish(Outgoing(WORK, b"stored", "1"))
    await restart(wiped=False)

    async with pulling(bus) as pulled:
        await until(lambda: pulled == [b"stored"])


async def test_tailing_goes_on_in_the_same_incarnation(bus: Bus, restart: Restart) -> None:
    async with tailing(bus, after=0) as tailed:
        await bus.publish(Outgoing(LOG, b"one", "1"))
        await until(lambda: len(tailed) == 1)
        await restart(wiped=False)
        await bus.publish(Outgoing(LOG, b"two", "2"))
        await until(lambda: len(tailed) >= 2)

    assert [(message.data, message.sequence) for message in tailed] == [(b"one", 1), (b"two", 2)]
    assert tailed[0].incarnation == tailed[1].incarnation


async def test_tailing_a_wiped_stream_begins_anew_under_another_name(bus: Bus, restart: Restart) -> None:
    async with tailing(bus, after=0) as tailed:
        await bus.publish_all([Outgoing(LOG, b"one", "1"), Outgoing(LOG, b"two", "2")])
        await until(lambda: len(tailed) == 2)
        await restart(wiped=True)
        await bus.publish(Outgoing(LOG, b"three", "3"))
        await until(lambda: len(tailed) >= 3)

    assert [(message.data, message.sequence) for message in tailed] == [(b"one", 1), (b"two", 2), (b"three", 1)]
    assert tailed[2].incarnation != tailed[1].incarnation == tailed[0].incarnation
    assert (await bus.stream_position(subjects.EVENTS_STREAM)).incarnation == tailed[2].incarnation


async def test_a_message_with_a_known_id_is_dropped(bus: Bus) -> None:
    for data in (b"first", b"second"):
        await bus.publish(Outgoing(LOG, data, "the same"))

    position = await bus.stream_position(subjects.EVENTS_STREAM)
    assert position.last_sequence == 1


async def test_a_message_that_is_too_large_is_refused_and_the_connection_stays(bus: Bus) -> None:
    small, large = Outgoing(LOG, b"small", "1"), Outgoing(LOG, b"x" * (bus.most_bytes + 1), "2")
    for messages in ([small, large], [large, small]):  # one is sent among others, and one by itself
        with pytest.raises(BusUnavailableError, match="payload"):
            await bus.publish_in_order(messages)
    with pytest.raises(BusUnavailableError, match="payload"):
        await bus.publish_all([large])
    assert bus.is_connected

    await bus.publish_in_order([Outgoing(LOG, b"x" * bus.most_bytes, str(n), {"Qd-Client": "c" * 36}) for n in (3, 4)])

    assert (await bus.stream_position(subjects.EVENTS_STREAM)).last_sequence == 2


async def test_what_is_kept_is_read_between_two_places(bus: Bus) -> None:
    await bus.publish_all([Outgoing(LOG, str(n).encode(), str(n)) for n in range(1, 8)])

    read = [m.data async for m in bus.read(subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=2, until=5)]

    assert read == [b"3", b"4", b"5"]


@pytest.mark.parametrize("kept", [20, 0], ids=["the newest are kept", "nothing is kept"])
async def test_reading_ends_where_what_waited_is_evicted_meanwhile(bus: Bus, nats_url: str, kept: int) -> None:
    most = 2 * await _tail_batch()  # so that some have not been asked for when the first is read
    await bus.publish_in_order([Outgoing(LOG, str(n).encode(), str(n)) for n in range(1, most + 1)])
    client = await nats.connect(nats_url, allow_reconnect=False)
    read: list[int] = []

    async with asyncio.timeout(15):
        async for message in bus.read(subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=0, until=most):
            read.append(message.sequence)
            if len(read) == 1:  # as the stream does by itself, to keep within its size and age
                await client.jetstream().purge_stream(subjects.EVENTS_STREAM, keep=kept)
    await client.close()

    assert len(read) < most
    assert read == sorted(set(read))
    assert set(range(most - kept + 1, most + 1)) <= set(read)


async def test_without_a_server_publishing_says_so_and_starting_does_not_fail(
    bus: Bus, nats_server: EmbeddedServers
) -> None:
    await nats_server.kill("nats")
    await until(lambda: not bus.is_connected)
    with pytest.raises(BusUnavailableError):
        await bus.publish(Outgoing(WORK, b"", "1"))
    await bus.ring(subjects.EVENTS_DOORBELL)

    late = Bus(nats_server.nats_url, name="late")
    await late.start(wait=timedelta(seconds=0.1))
    try:
        assert await late.check() == "not connected"
        await nats_server.start("nats")
        await until(lambda: late.is_connected)
    finally:
        await late.close()


async def test_whoever_is_told_something_answers(bus: Bus) -> None:
    heard: list[bytes] = []

    async def hear(message: Message) -> None:
        heard.append(message.data)
        await message.respond(b"")

    listening = await bus.listen(ORDERS, hear)
    await bus.tell(ORDERS, b"one")
    await bus.tell(ORDERS, b"two")
    assert heard == [b"one", b"two"]

    await listening.stop()
    with pytest.raises(BusUnavailableError, match="no responders"):
        await bus.tell(ORDERS, b"three")
    assert heard == [b"one", b"two"]


async def test_what_is_told_while_a_listener_stops_is_answered_or_heard_by_nobody(bus: Bus, nats_url: str) -> None:
    """Never neither: whoever told it would have to take it for heard."""
    other = Bus(nats_url, name="other")
    await other.start()

    async def hear(message: Message) -> None:
        await message.respond(b"")

    async def told(subject: str) -> str:
        try:
            await bus.tell(subject, b"")
        except NobodyListensError:
            return "nobody"
        return "heard"

    words: Counter[str] = Counter()
    for number in range(40):
        subject = subjects.orders(f"agent-{number}")
        listening = await other.listen(subject, hear)
        async with asyncio.TaskGroup() as group:
            early = [group.create_task(told(subject)) for _ in range(5)]
            await asyncio.sleep(0)
            stopping = group.create_task(listening.stop())
            late = []
            while not stopping.done():
                late.append(group.create_task(told(subject)))
                await asyncio.sleep(0)
        words += Counter(each.result() for each in (*early, *late))
    await other.close()

    assert words["heard"] >= 40
    assert words["nobody"] >= 40


async def test_where_nobody_listens_no_answer_is_waited_for(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "PUBLISH_SECONDS", 3600)
    with pytest.raises(BusUnavailableError, match="no responders"):
        await bus.tell(ORDERS, b"unheard")


async def test_who_does_not_answer_was_perhaps_not_reached(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "PUBLISH_SECONDS", 0.1)
    heard: list[bytes] = []

    async def hear(message: Message) -> None:
        heard.append(message.data)

    await bus.listen(ORDERS, hear)
    with pytest.raises(BusUnavailableError, match="timeout"):
        await bus.tell(ORDERS, b"heard")
    assert heard == [b"heard"]


async def test_what_is_listened_to_is_heard_after_the_server_was_killed(bus: Bus, restart: Restart) -> None:
    heard: list[bytes] = []

    async def hear(message: Message) -> None:
        heard.append(message.data)
        await message.respond(b"")

    await bus.listen(ORDERS, hear)
    await restart(wiped=True)

    await bus.tell(ORDERS, b"after")
    assert heard == [b"after"]


async def test_a_stream_that_somebody_deleted_is_made_again(bus: Bus, nats_server: EmbeddedServers) -> None:
    async with pulling(bus) as pulled:
        await bus.publish(Outgoing(WORK, b"before", "1"))
        await until(lambda: b"before" in pulled)
        client = await nats.connect(nats_server.nats_url)
        for stream in (subjects.WORK_STREAM, subjects.EVENTS_STREAM):
            await client.jetstream().delete_stream(stream)
        await client.close()

        with pytest.raises(BusUnavailableError):
            await bus.publish_in_order([Outgoing(LOG, b"lost", "2")])
        await bus.publish_in_order([Outgoing(LOG, b"kept", "3")])
        await bus.publish(Outgoing(WORK, b"after", "4"))
        await until(lambda: b"after" in pulled)


async def test_where_the_disk_is_small_the_streams_keep_less(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "nats.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{tmp_path}", max_file_store: 100MB }}\n')
    server = await asyncio.create_subprocess_exec(str(binary()), "-c", str(config), stderr=asyncio.subprocess.DEVNULL)
    small = Bus(f"nats://127.0.0.1:{port}", name="test")
    try:
        await small.start(wait=timedelta(seconds=30))
        await until(lambda: small.is_connected)
        await small.publish_in_order([Outgoing(LOG, b"kept", "1")])
        assert (await small.stream_position(subjects.EVENTS_STREAM)).last_sequence == 1
    finally:
        await small.close()
        server.terminate()
        await server.wait()
