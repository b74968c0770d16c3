"""What the user `subscriber` may do, on the embedded server and on that of deploy/: read the events, no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import BadRequestError

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.nats_accounts import DOMAIN, INBOX_PREFIX, SERVICES
from quarterdeck.stack.ports import free_ports
from services.contracts import subjects
from services.runtime.jetstream import Bus, BusUnavailableError, Message
from services.runtime.nats_client import Client as OurClient
from tests.integration.subscribers.conftest import PASSWORD, Server, start_deployed
from tests.integration.waiting import until

SECONDS = 20
API = f"$JS.{DOMAIN}.API"
SUBJECT = "qd.evt.job.run.log"
NEXT = "CONSUMER.MSG.NEXT.EVENTS.mine"
WORK = subjects.WORK_STREAM
ORDERS = subjects.orders("agent-1")
NOTHING_NEW = b'{"batch": 1, "no_wait": true}'

NOT_TO_BE_SENT = [
    "qd.evt.job.run.log",
    "qd.cmd.job.submit",
    "qd.work.publish",
    "qd.order.agent-1",
    "qd.ctl.events",
    "qd.ctl.run",
    "$JS.ACK.WORK.publish-workers.1.1.1.1.1",
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.CONSUMER.CREATE.EVENTS.other.qd.evt.>",
    *(
        f"{API}.{request}"
        for request in (
            "STREAM.CREATE.OTHER",
            "STREAM.UPDATE.EVENTS",
            "STREAM.PURGE.EVENTS",
            "STREAM.DELETE.EVENTS",
            "STREAM.MSG.DELETE.EVENTS",
            "STREAM.INFO.WORK",
            "STREAM.NAMES",
            "STREAM.LIST",
            "CONSUMER.CREATE.WORK.other.qd.work.publish",
            "CONSUMER.CREATE.COMMANDS.other",
            "CONSUMER.DURABLE.CREATE.WORK.other",
            "CONSUMER.DELETE.WORK.publish-workers",
            "CONSUMER.MSG.NEXT.WORK.publish-workers",
            "CONSUMER.NAMES.EVENTS",
            "CONSUMER.LIST.EVENTS",
            "CONSUMER.PAUSE.EVENTS.mine",
        )
    ),
]
NOT_TO_BE_HEARD = [
    *(">", "_INBOX.>", "$JS.>", "$JS.EVENT.ADVISORY.>"),
    *("qd.>", "qd.work.*", "qd.order.*", "qd.order.agent-1", "qd.ctl.>", "qd.cmd.>"),
]


@dataclass
class Connected:
    client: Client
    refusals: list[str] = field(default_factory=list)
    """What the server said of what was not allowed, in small letters."""

    @property
    def jetstream(self) -> JetStreamContext:
        return self.client.jetstream(domain=DOMAIN, timeout=SECONDS)


@pytest.fixture
async def services(server: Server) -> AsyncIterator[Client]:
    client = await nats.connect(server.url, allow_reconnect=False)
    yield client
    await client.close()


@pytest.fixture
async def subscriber(server: Server) -> AsyncIterator[Connected]:
    refusals: list[str] = []

    async def note(error: Exception) -> None:
        refusals.append(str(error).lower())

    client = await nats.connect(
        server.subscriber_url, inbox_prefix=INBOX_PREFIX.encode(), allow_reconnect=False, error_cb=note
    )
    yield Connected(client, refusals)
    await client.close()


def consumer(name: str, *, deliver_subject: str | None = None) -> ConsumerConfig:
    return ConsumerConfig(
        name=name,
        durable_name=name,
        filter_subject=subjects.ALL_EVENTS,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_subject=deliver_subject,
    )


async def kept(services: Client) -> dict[str, int]:
    """How many messages each stream has."""
    context = services.jetstream(timeout=SECONDS)
    return {info.config.name or "": info.state.messages for info in await context.streams_info()}


async def test_events_are_heard_live(services: Client, subscriber: Connected) -> None:
    live = await subscriber.client.subscribe(subjects.ALL_EVENTS)
    await subscriber.client.flush()
    async with asyncio.timeout(SECONDS):
        heard = None
        while heard is None:  # what is heard live may be missed, and is not sent again: it is another one then
            await services.jetstream().publish(SUBJECT, b"{}")
            with suppress(nats.errors.TimeoutError):
                heard = await live.next_msg(2)
    assert heard.subject == SUBJECT


async def test_a_consumer_is_made_looked_at_used_and_deleted(services: Client, subscriber: Connected) -> None:
    jetstream = subscriber.jetstream
    for text in (b"1", b"2"):
        await services.jetstream().publish(SUBJECT, text, headers={"Qd-Sequence": text.decode()})
    assert (await jetstream.stream_info("EVENTS")).state.messages == 2
    await jetstream.add_consumer("EVENTS", consumer("mine"))
    pulled = await jetstream.pull_subscribe_bind("mine", "EVENTS")

    messages = await pulled.fetch(2, timeout=SECONDS)
    for message in messages:
        await message.ack_sync(timeout=SECONDS)

    assert [message.data for message in messages] == [b"1", b"2"]
    assert [(message.headers or {})["Qd-Sequence"] for message in messages] == ["1", "2"]
    info = await jetstream.consumer_info("EVENTS", "mine")
    assert (info.num_pending, info.num_ack_pending) == (0, 0)
    await jetstream.add_consumer("EVENTS", consumer("mine"))  # as each start of a subscriber does
    assert await jetstream.delete_consumer("EVENTS", "mine")
    assert subscriber.refusals == []


@pytest.mark.parametrize("subject", NOT_TO_BE_SENT)
async def test_all_else_is_refused(services: Client, subscriber: Connected, subject: str) -> None:
    before = await kept(services)
    with pytest.raises(nats.errors.TimeoutError):
        await subscriber.client.request(subject, b"", timeout=0.2)
    await until(lambda: bool(subscriber.refusals))
    assert f'permissions violation for publish to "{subject.lower()}"' in subscriber.refusals[0]
    assert await kept(services) == before


@pytest.mark.parametrize("subject", NOT_TO_BE_HEARD)
async def test_nobody_elses_messages_are_heard(subscriber: Connected, subject: str) -> None:
    await subscriber.client.subscribe(subject)
    await until(lambda: bool(subscriber.refusals))
    assert f'permissions violation for subscription to "{subject.lower()}"' in subscriber.refusals[0]


async def send_answers_to(client: Client, api: str, target: str) -> None:
    """Have a consumer's empty answer sent to ``target``; return once that has been done."""
    answer = await client.subscribe(f"{INBOX_PREFIX}.answer")
    for reply in (target, f"{INBOX_PREFIX}.answer"):
        await client.publish(f"{api}.{NEXT}", NOTHING_NEW, reply=reply)
    # The consumer answers in order, and both answers go the same way.
    assert (await answer.next_msg(SECONDS)).data == b""
    await client.flush(SECONDS)


@pytest.mark.parametrize("request_of", ["STREAM.PURGE", "STREAM.DELETE"])
async def test_an_answer_sent_elsewhere_stays_within_the_account(
    services: Client, subscriber: Connected, request_of: str
) -> None:
    """Within one account it would be obeyed, which is why subscribers have another."""
    await services.jetstream().publish("qd.work.publish", b"an order")
    await subscriber.jetstream.add_consumer("EVENTS", consumer("mine"))

    for api in ("$JS.API", API):
        await send_answers_to(subscriber.client, API, f"{api}.{request_of}.{WORK}")
    assert (await kept(services))[WORK] == 1

    await send_answers_to(services, "$JS.API", f"$JS.API.{request_of}.{WORK}")

    async def obeyed() -> bool:
        return (await kept(services)).get(WORK, 0) == 0

    async with asyncio.timeout(SECONDS):
        while not await obeyed():  # noqa: ASYNC110  the server sets no event of ours
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("target", ["qd.work.publish", "qd.cmd.job.submit", f"$JS.API.STREAM.DELETE.{WORK}"])
async def test_events_cannot_be_pushed_into_other_streams(services: Client, subscriber: Connected, target: str) -> None:
    await services.jetstream().publish(SUBJECT, b"{}")
    before = await kept(services)
    await subscriber.jetstream.add_consumer("EVENTS", consumer("pushed", deliver_subject=target))

    await subscriber.jetstream.add_consumer("EVENTS", consumer("mine"))
    pulled = await subscriber.jetstream.pull_subscribe_bind("mine", "EVENTS")
    assert len(await pulled.fetch(1, timeout=SECONDS)) == 1

    assert await kept(services) == before
    assert (await subscriber.jetstream.consumer_info("EVENTS", "pushed")).delivered.consumer_seq == 0


async def test_events_cannot_be_pushed_into_their_own_stream(subscriber: Connected) -> None:
    with pytest.raises(BadRequestError, match="cycle"):
        await subscriber.jetstream.add_consumer("EVENTS", consumer("pushed", deliver_subject="qd.evt.forged.run.log"))


@dataclass
class Deployed:
    """A server with the users of deploy/."""

    port: int

    def url(self, user: str) -> str:
        return f"nats://{user}:{PASSWORD}@127.0.0.1:{self.port}"

    @asynccontextmanager
    async def connected(self, user: str) -> AsyncIterator[Connected]:
        refusals: list[str] = []

        async def note(error: Exception) -> None:
            refusals.append(str(error).lower())

        client = OurClient()  # whose `flush` does not overtake a subscription
        await client.connect(self.url(user), allow_reconnect=False, error_cb=note)
        try:
            yield Connected(client, refusals)
        finally:
            await client.close()


@pytest.fixture
async def deployed(tmp_path: Path) -> AsyncIterator[Deployed]:
    (port,) = free_ports(1)
    child = await start_deployed(tmp_path, port)
    yield Deployed(port)
    await child.stop()


async def test_agents_tell_each_other_that_the_model_service_refuses(deployed: Deployed) -> None:
    async with deployed.connected("agent") as refused, deployed.connected("agent") as other:
        heard = await other.client.subscribe(subjects.PACE)
        await other.client.flush()
        await refused.client.publish(subjects.PACE, b"scope")
        assert (await heard.next_msg(SECONDS)).data == b"scope"


async def test_a_scheduler_gives_runs_to_agents_which_answer_that(deployed: Deployed) -> None:
    """As the services' own code does."""
    bus, agent = (Bus(deployed.url(user), name=user) for user in ("scheduler", "agent"))
    heard: list[bytes] = []

    async def hear(message: Message) -> None:
        heard.append(message.data)
        await message.respond(b"")

    try:
        for each in (bus, agent):
            await each.start(wait=timedelta(seconds=SECONDS))
        await agent.listen(ORDERS, hear)
        for order in (b"one", b"two"):
            await bus.tell(ORDERS, order)
        assert heard == [b"one", b"two"]
        with pytest.raises(BusUnavailableError, match="no responders"):
            await bus.tell(subjects.orders("agent-2"), b"three")
    finally:
        for each in (bus, agent):
            await each.close()


@pytest.mark.parametrize("user", ["gateway", "agent", "vcs"])
async def test_nobody_but_a_scheduler_gives_runs_to_agents(deployed: Deployed, user: str) -> None:
    async with deployed.connected("agent") as agent, deployed.connected(user) as other:
        heard = await agent.client.subscribe(ORDERS)
        await agent.client.flush()
        with pytest.raises(nats.errors.TimeoutError):
            await other.client.request(ORDERS, b"forged", timeout=0.2)
        await until(lambda: bool(other.refusals))
        assert f'permissions violation for publish to "{ORDERS}"' in other.refusals[0]
        assert heard.pending_msgs == 0


@pytest.mark.parametrize("target", [ORDERS, "qd.cmd.job.cancel", f"$JS.API.STREAM.PURGE.{WORK}"])
async def test_an_agent_says_nothing_more_by_answering_itself(deployed: Deployed, target: str) -> None:
    """Whoever may answer what it hears, whatever that says of where to, may say anything to anybody."""
    async with deployed.connected("onlooker") as onlooker, deployed.connected("agent") as agent:
        heard = await onlooker.client.subscribe(target)
        await onlooker.client.flush()
        own = await agent.client.subscribe(subjects.PACE)
        await agent.client.publish(subjects.PACE, b"scope", reply=target)
        await (await own.next_msg(SECONDS)).respond(b"forged")
        await until(lambda: bool(agent.refusals))
        assert f'permissions violation for publish to "{target.lower()}"' in agent.refusals[0]
        assert heard.pending_msgs == 0


@pytest.mark.parametrize("user", ["gateway", "scheduler", "vcs"])
async def test_nobody_but_agents_hears_what_is_given_to_them(deployed: Deployed, user: str) -> None:
    """Whoever has an order's token holds its run."""
    async with deployed.connected(user) as connected:
        await connected.client.subscribe("qd.order.*")
        await until(lambda: bool(connected.refusals))
        assert 'permissions violation for subscription to "qd.order.*"' in connected.refusals[0]


async def test_what_a_server_without_accounts_had_stored_is_taken_over(nats_server: EmbeddedServers) -> None:
    client = await nats.connect(nats_server.nats_url, allow_reconnect=False)
    await client.jetstream().add_stream(name="EVENTS", subjects=["qd.evt.>"])
    await client.jetstream().publish(SUBJECT, b"kept")
    await client.close()
    await nats_server.running.pop("nats").stop()
    store = nats_server.folder / "nats" / "jetstream"
    (store / SERVICES).rename(store / "$G")

    await nats_server.start("nats")

    client = await nats.connect(nats_server.nats_url, allow_reconnect=False)
    message = await client.jetstream().get_last_msg("EVENTS", SUBJECT)
    await client.close()
    assert message.data == b"kept"
