"""The examples of examples/subscribe as a user runs them: they go away, come back, miss no event and repeat none."""

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import nats
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.environment import base_environment
from services.contracts import subjects
from services.contracts.words import EventKind
from services.jobs.eventlog import LoggedEvent
from services.jobs.unit import Draft, Unit
from services.runtime.jetstream import Bus, Outgoing
from services.scheduler.publication import EventPublisher
from tests.integration.jobs.domain import Domain
from tests.integration.subscribers.conftest import ROOT
from tests.integration.waiting import until

EXAMPLES = ROOT / "examples" / "subscribe"
SECONDS = 60
NAME = "my-events"


class Subscriber:
    """One example in a folder of its own, where it keeps its position."""

    def __init__(self, command: list[str], folder: Path, url: str) -> None:
        self._command = command
        self._folder = folder
        self._environment = base_environment() | {"NATS_URL": url}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> None:
        """Return once it is ready for events."""
        self._process = await asyncio.create_subprocess_exec(
            *(*self._command, *arguments),
            cwd=self._folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        said = b""
        async with asyncio.timeout(SECONDS):
            while b"ready\n" not in said:
                line = await self._process.stderr.readline()
                assert line, said.decode()
                said += line

    @property
    def position(self) -> str:
        file = self._folder / f"{NAME}.position"
        return file.read_text().strip() if file.exists() else ""

    async def lines(self, count: int) -> list[str]:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            return [(await self._process.stdout.readline()).decode().rstrip("\n") for _ in range(count)]

    async def end(self, by: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """Its exit code, what else it had printed, and its complaints."""
        assert self._process is not None
        self._process.send_signal(by)
        output, complaints = await asyncio.wait_for(self._process.communicate(), SECONDS)
        assert self._process.returncode is not None
        code, self._process = self._process.returncode, None
        return code, output.decode(), complaints.decode()

    async def clean_up(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the JavaScript example with its locked packages."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("node or npm is not installed: the JavaScript example cannot be run")
    folder = tmp_path_factory.mktemp("javascript") / "example"
    shutil.copytree(EXAMPLES / "javascript", folder, ignore=shutil.ignore_patterns("node_modules"))
    # With the whole environment: it tells npm where its registry is.
    installing = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert installing.returncode == 0, installing.stdout
    return folder


def command_of(language: str, request: pytest.FixtureRequest) -> list[str]:
    if language == "python":
        return [sys.executable, str(EXAMPLES / "python" / "subscribe.py")]
    return ["node", str(request.getfixturevalue("node_folder") / "subscribe.js")]


@asynccontextmanager
async def subscriber_in(folder: Path, command: list[str], url: str) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber(command, folder, url)
    yield subscriber
    await subscriber.clean_up()


@pytest.fixture(params=["python", "javascript"])
async def subscriber(
    request: pytest.FixtureRequest, tmp_path: Path, nats_server: EmbeddedServers, bus: Bus
) -> AsyncIterator[Subscriber]:
    """Not started yet; ``bus`` has set the streams up."""
    command = command_of(request.param, request)
    async with subscriber_in(tmp_path, command, nats_server.subscriber_nats_url) as made:
        yield made


Tell = Callable[[UUID, int], Awaitable[list[str]]]


@pytest.fixture
def tell(domain: Domain, publisher: EventPublisher) -> Tell:
    """Write that many events of a job, publish all there is; return what a subscriber prints of the new ones."""

    async def publish(job_id: UUID, count: int) -> list[str]:
        async def work(unit: Unit) -> None:
            for n in range(count):
                unit.tell(job_id, Draft(EventKind.LOG, {"message": str(n)}))

        told = len(await domain.events(job_id))
        await domain.units.run([job_id], work)
        await publisher.run_once()
        return [printed(event) for event in (await published(domain, job_id))[told:]]

    return publish


async def published(domain: Domain, job_id: UUID) -> list[LoggedEvent]:
    """The job's events with their sequences."""
    page = await domain.log.published_after(domain.client.id, 0, most=10_000)
    return [event for event in page.events if event.job_id == job_id]


def printed(event: LoggedEvent) -> str:
    return f"{event.sequence} {event.job_id} {event.number} {event.kind}"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
async def test_who_was_away_gets_exactly_what_was_missed(
    subscriber: Subscriber, domain: Domain, tell: Tell, ending: signal.Signals
) -> None:
    job_id = await domain.submit()
    await subscriber.start()
    seen = await tell(job_id, 3)
    assert (await subscriber.lines(4))[1:] == seen  # the first one is the job's submission
    await until(lambda: subscriber.position == seen[-1].split()[0])  # killed before, it would print the last one again
    code, more, complaints = await subscriber.end(ending)
    assert (more, complaints) == ("", "")
    assert code == (0 if ending == signal.SIGINT else -ending)

    missed = await tell(job_id, 120)
    await subscriber.start()
    assert await subscriber.lines(120) == missed
    live = await tell(job_id, 2)
    assert await subscriber.lines(2) == live
    assert await subscriber.end() == (0, "", "")


async def test_an_absence_of_an_hour_loses_nothing(
    subscriber: Subscriber, domain: Domain, tell: Tell, nats_url: str
) -> None:
    """Neither the consumer nor the events are gone by then: NATS keeps the one for ever, the others for a day."""
    await subscriber.start()
    await tell(await domain.submit(), 1)
    await subscriber.lines(2)
    await subscriber.end()

    client = await nats.connect(nats_url, allow_reconnect=False)
    context = client.jetstream()
    consumer = (await context.consumer_info(subjects.EVENTS_STREAM, NAME)).config
    stream = (await context.stream_info(subjects.EVENTS_STREAM)).config
    await client.close()
    assert (consumer.durable_name, consumer.inactive_threshold or 0) == (NAME, 0)
    assert (stream.max_age or 0) > 3600


async def test_one_jobs_events_are_picked_out_of_all(subscriber: Subscriber, domain: Domain, tell: Tell) -> None:
    mine, other = await domain.submit(), await domain.submit()
    await subscriber.start("--job", str(mine))
    await tell(other, 2)
    expected = await tell(mine, 2)
    await tell(other, 2)
    expected += await tell(mine, 1)
    assert (await subscriber.lines(4))[1:] == expected
    assert await subscriber.end() == (0, "", "")


async def test_repeats_and_deltas_are_dropped(subscriber: Subscriber, domain: Domain, tell: Tell, bus: Bus) -> None:
    job_id = await domain.submit()
    await subscriber.start()
    await tell(job_id, 1)
    await subscriber.lines(2)
    event = (await published(domain, job_id))[-1]
    subject = subjects.event(str(job_id), "", event.kind)
    headers = {subjects.SEQUENCE_HEADER: str(event.sequence), subjects.CLIENT_HEADER: str(event.client_id)}

    await subscriber.end()
    # As when it is published again after NATS's window for duplicates has passed.
    await bus.publish(Outgoing(subject, event.encoded(), "another id", headers))
    await bus.publish(Outgoing(subjects.event(str(job_id), "run", EventKind.DELTA), b'{"kind": "delta"}', "delta"))
    new = await tell(job_id, 1)
    await subscriber.start()

    assert await subscriber.lines(1) == new
    assert await subscriber.end() == (0, "", "")
