"""What a publication hands on to its forge, and when it is called delivered."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from services.jobs.publishing import Publication, PublicationHold
from services.vcs.forges import PublishedChange
from services.vcs.publisher import Publisher
from tests.integration.vcs.conftest import METADATA, Node, Remote

BRANCH = "quarterdeck/run-1"
PAGE = "/changesets/1"


@dataclass
class Recording:
    """The forge and the store of publications at once, which note what they are told, in order."""

    told: list[Any] = field(default_factory=list)

    async def open(self, change: PublishedChange) -> str:
        self.told.append(change)
        return PAGE

    async def delivered(self, _: PublicationHold, **shown: str) -> None:
        self.told.append(shown)


async def made(node: Node, remote: Remote, *, is_draft: bool, verified: bool | None) -> Publication:
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
        tries=1,
        summary="What changed.",
        is_draft=is_draft,
        verified=verified,
    )


@pytest.mark.parametrize(
    ("is_draft", "verified", "body"),
    [
        (True, False, "**The tests of this change did not pass.**\n\nWhat changed."),
        (False, True, "What changed."),
        (False, None, "What changed."),
    ],
)
async def test_the_forge_is_told_of_a_draft_and_of_failed_tests(
    node: Node, remote: Remote, is_draft: bool, verified: bool | None, body: str
) -> None:
    recording: Any = Recording()
    unused: Any = None
    publisher = Publisher(
        publishing=recording,
        heartbeat=unused,
        bus=unused,
        git=node.git,
        mirrors=node.mirrors,
        commits=node.commits,
        forge=recording,
        holder="vcs-1",
        most=1,
    )
    publication = await made(node, remote, is_draft=is_draft, verified=verified)
    await publisher._publish(publication)
    change, shown = recording.told
    assert (change.draft, change.body, change.title, change.branch) == (is_draft, body, "Change it", BRANCH)
    assert shown == {"url": PAGE, "branch": BRANCH, "commit_sha": publication.commit_sha}
    assert remote.at(BRANCH) == publication.commit_sha
