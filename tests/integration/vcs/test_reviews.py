"""A review's publication on the local forge: it begins at what its branch is at that moment, and goes on top of it."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from services.contracts.rest import JobOptions
from services.contracts.words import ExitReason, Publish
from services.jobs.publishing import Publication, PublicationHold, Shown
from services.vcs.forges.local import LocalForge
from services.vcs.worktrees.worktrees import Ready
from tests.integration.vcs.conftest import METADATA, Node, Remote, git
from tests.integration.vcs.test_publisher import Recording, publisher

BRANCH = "quarterdeck/change-1"


class Local(Recording):
    """The local forge for everything."""

    name = "local"

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.open = LocalForge(node.git, node.mirrors, "").open  # type: ignore[method-assign]


async def reviewed(node: Node, remote: Remote, run_id: str = "run") -> tuple[Ready, Publication]:
    """A run on the pull request's own branch, and what it hands over: as its row and `claim_changeset` have it."""
    ready = await node.worktrees.prepare(run_id, 1, remote.repository, base_ref=BRANCH)
    (ready.path / "reviewed").write_text("x\n")
    committed = await node.commits.commit_worktree(run_id, 1, METADATA)
    return ready, Publication(
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
        expected_remote_sha=ready.base_sha,
        also_ours=[],
        tries=1,
        summary="As you wish.",
        publish=Publish.PULL_REQUEST,
        verified=None,
        name=None,
        prompt="Do as they say.",
        options=JobOptions(),
        is_review=True,
    )


async def test_it_begins_at_what_the_branch_is_at_now(node: Node, remote: Remote) -> None:
    remote.commit({"change": "1\n"}, branch=BRANCH)
    await node.mirrors.fetch(remote.repository, ref=BRANCH)
    newest = remote.commit({"theirs": "2\n"}, branch=BRANCH)
    ready, _ = await reviewed(node, remote)
    assert (ready.base_sha, ready.base_branch) == (newest, BRANCH)
    assert (ready.path / "theirs").read_text() == "2\n"


async def test_it_is_pushed_on_top_and_a_try_after_its_push_finds_it_there(node: Node, remote: Remote) -> None:
    base = remote.commit({"change": "1\n"}, branch=BRANCH)
    _, publication = await reviewed(node, remote)
    local = Local(node)
    for _ in range(2):  # as where its vcs was killed before it recorded the first
        await publisher(node, local)._publish(publication)
    assert remote.at(BRANCH) == publication.commit_sha
    assert git(remote.bare, "rev-parse", f"{BRANCH}^") == base
    shown = [told for told in local.told if isinstance(told, Shown)]
    assert [(one.forge, one.url, one.number) for one in shown] == [
        ("local", f"/changesets/{publication.hold.changeset_id}", None)
    ] * 2


async def test_nothing_newer_is_overwritten_be_it_ours(node: Node, remote: Remote) -> None:
    remote.commit({"change": "1\n"}, branch=BRANCH)
    _, publication = await reviewed(node, remote)
    newer = remote.commit({"newer": "3\n"}, branch=BRANCH)
    for tried in (publication, replace(publication, tries=2)):
        local = Local(node)
        await publisher(node, local)._publish(tried)
        reason, words = local.told
        assert reason == ExitReason.PUSH_REJECTED
        assert newer in words
        assert remote.at(BRANCH) == newer
