"""What a publication hands on to its forge, and when it is called delivered."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.contracts import subjects
from services.contracts.rest import JobOptions
from services.contracts.v1.commands_pb2 import PublishOrder
from services.contracts.words import ExitReason, Publish, Queue
from services.jobs.publishing import Publication, PublicationHold, Shown
from services.runtime.jetstream import Bus, Outgoing
from services.vcs.acting import Hands
from services.vcs.forges import Opened, PublishedChange
from services.vcs.git.repositories import Repository
from services.vcs.mirrors.reach import Reach
from services.vcs.publishing.publisher import MAX_TRIES, MOST_CLAIMS, Publisher
from tests.integration.vcs.conftest import METADATA, Node, Remote
from tests.integration.vcs.hands import Always
from tests.integration.waiting import until, until_async

BRANCH = "quarterdeck/run-1"
PAGE = "/changesets/1"


@dataclass
class Recording:
    """The forges and the store of publications at once, which note what they are told, in order."""

    told: list[Any] = field(default_factory=list)

    name = "recording"

    def of(self, _: Repository) -> "Recording":
        return self

    async def open(self, change: PublishedChange) -> Opened:
        self.told.append(change)
        return Opened(PAGE, 7, ["no such reviewer"])

    async def claim(self, changeset_id: UUID, run_id: UUID, *, dispatch: int, holder: str) -> None:
        assert holder == "vcs-1"
        self.told.append((changeset_id, run_id, dispatch))

    async def delivered(self, _: PublicationHold, shown: Shown, **pushed: str) -> None:
        self.told += [shown, pushed]

    async def retry(self, _: PublicationHold, *, error: str, delay: timedelta) -> None:
        self.told += [error, delay]

    async def failed(self, _: PublicationHold, *, reason: ExitReason, error: str) -> None:
        self.told += [reason, error]


async def made(node: Node, remote: Remote, *, publish: Publish, verified: bool | None, **options: Any) -> Publication:
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    (ready.path / "new").write_text("x\n")
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    return Publication(
        hold=PublicationHold(uuid4(), uuid4(), uuid4(), 1, uuid4()),
        repository=str(remote.bare),
        branch=BRANCH,
        base_sha=ready.base_sha,
        base_branch="main",
        commit_sha=committed.sha,
        author_name=METADATA.author_name,
        author_email=METADATA.author_email,
        time=datetime.fromtimestamp(METADATA.time, UTC),
        message=METADATA.message,
        patch=committed.patch,
        expected_remote_sha="",
        also_ours=[],
        tries=1,
        summary="What changed.",
        publish=publish,
        verified=verified,
        name="Tidy up",
        prompt="Tidy it up.\nAll of it.",
        options=JobOptions.model_validate(options),
    )


@pytest.mark.parametrize(
    ("publish", "verified", "body"),
    [
        (Publish.DRAFT, False, "**The tests of this change did not pass.**\n\nWhat changed."),
        (Publish.PULL_REQUEST, True, "What changed."),
        (Publish.BRANCH, None, "What changed."),
    ],
)
async def test_the_forge_is_told_of_a_draft_and_of_failed_tests(
    node: Node, remote: Remote, publish: Publish, verified: bool | None, body: str
) -> None:
    recording = Recording()
    publication = await made(node, remote, publish=publish, verified=verified)
    await publisher(node, recording)._publish(publication)
    change, shown, pushed = recording.told
    assert (change.publish, change.body, change.title, change.branch) == (publish, body, "Change it", BRANCH)
    assert shown == Shown("recording", PAGE, 7, timedelta(minutes=9), ["no such reviewer"])
    assert pushed == {"branch": BRANCH, "commit_sha": publication.commit_sha}
    assert remote.at(BRANCH) == publication.commit_sha


async def test_a_job_s_templates_are_filled_in(node: Node, remote: Remote) -> None:
    recording = Recording()
    asked = {
        "title": "{name} in {repository}",
        "body": "{summary}\n\n{prompt} ({run}) {unknown}",
        "labels": ["bot"],
        "reviewers": ["ann"],
        "teamReviewers": ["core"],
        "assignees": ["ben"],
    }
    publication = await made(node, remote, publish=Publish.PULL_REQUEST, verified=None, pullRequest=asked)
    await publisher(node, recording)._publish(publication)
    change = recording.told[0]
    assert change.title == f"Tidy up in {remote.bare}"
    assert change.body == f"What changed.\n\nTidy it up. ({publication.hold.run_id}) {{unknown}}"
    assert (change.labels, change.reviewers, change.team_reviewers, change.assignees) == (
        ["bot"],
        ["ann"],
        ["core"],
        ["ben"],
    )


@pytest.mark.parametrize(("tries", "is_over"), [(1, False), (MAX_TRIES, True)])
async def test_a_disk_that_fails_is_told_of_and_tried_no_more_than_the_rest(
    node: Node, remote: Remote, tries: int, is_over: bool
) -> None:
    recording = Recording()
    publication = replace(await made(node, remote, publish=Publish.BRANCH, verified=None), tries=tries)
    mirrors = node.mirrors.place(remote.repository).git_dir.parent
    mirrors.rename(mirrors.with_name("away"))
    mirrors.write_bytes(b"")

    await publisher(node, recording)._publish(publication)

    assert any("FileExistsError" in str(told) for told in recording.told)
    assert (recording.told[0] == ExitReason.INTERNAL) is is_over


async def test_what_its_vcs_stops_over_again_and_again_is_given_up(node: Node, remote: Remote) -> None:
    recording = Recording()
    publication = await made(node, remote, publish=Publish.BRANCH, verified=None)

    await publisher(node, recording)._publish(replace(publication, tries=MOST_CLAIMS + 1))

    assert recording.told[0] == ExitReason.INTERNAL
    assert "publish it again" in recording.told[1]
    assert remote.at(BRANCH) == ""


@pytest.mark.parametrize("junk", [b"\xff no message", PublishOrder(changeset_id="no id").SerializeToString()])
async def test_what_is_no_order_is_thrown_away(node: Node, nats_url: str, junk: bytes) -> None:
    """Else it would come again for ever."""
    recording = Recording()
    order = PublishOrder(changeset_id=str(uuid4()), run_id=str(uuid4()), dispatch=3)
    subject = subjects.work(Queue.PUBLISH)
    bus = Bus(nats_url, name="test")
    await bus.start(wait=timedelta(seconds=20))
    await until(lambda: bus.is_connected)
    await bus.publish_all([Outgoing(subject, junk, "junk"), Outgoing(subject, order.SerializeToString(), "order")])
    publishing = asyncio.create_task(publisher(node, recording, bus=bus).run())

    async def are_gone() -> bool:
        position = await bus.stream_position(subjects.WORK_STREAM)
        return position.first_sequence > position.last_sequence

    try:
        await until_async(are_gone)
    finally:
        publishing.cancel()
        await bus.close()

    assert recording.told == [(UUID(order.changeset_id), UUID(order.run_id), 3)]


def publisher(node: Node, recording: Any, *, bus: Any = None) -> Publisher:
    unused: Any = None
    return Publisher(
        publishing=recording,
        heartbeat=unused,
        bus=bus,
        commits=node.commits,
        hands=Always(Hands(Reach(node.git, node.mirrors), recording)),
        observe_after=lambda _: timedelta(minutes=9),
        holder="vcs-1",
        most=1,
    )
