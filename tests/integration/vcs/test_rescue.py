"""What is in a worktree that nobody released comes into its mirror, whole, or the worktree stays."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.jobs.models import Checkpoint, SavedTree
from services.jobs.rescuing import Rescuing
from services.runtime.postgres import Database
from services.vcs.disk.rescue import Rescue
from services.vcs.errors import GitError, UnknownWorktreeError
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.options import MirrorOptions
from services.vcs.worktrees import snapshots
from services.vcs.worktrees.checkouts import CheckoutOptions
from services.vcs.worktrees.known_changes import Written
from services.vcs.worktrees.worktrees import Worktrees
from tests.integration.git_server import git_server
from tests.integration.jobs.domain import COMMIT, Domain
from tests.integration.vcs.conftest import Node, Remote, git

RUN = str(uuid4())
REF = f"refs/quarterdeck/rescue/{RUN}/1"
MIB = 1024 * 1024


@dataclass
class Stored:
    """What Postgres would have of every run."""

    patches: list[bytes] = field(default_factory=list)

    async def is_stored(self, _: UUID, patch: bytes) -> bool:
        return patch in self.patches

    async def checkpointed(self, _: UUID) -> bytes:
        return self.patches[0] if self.patches else b""


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def rescue(node: Node, stored: Stored) -> Rescue:
    return Rescue(node.root, node.git, node.worktrees, stored)


async def prepared(node: Node, remote: Remote, files: Mapping[str, str | bytes]) -> Path:
    """The worktree of attempt 1, with ``files`` written by its agent."""
    ready = await node.worktrees.prepare(RUN, 1, remote.repository)
    for name, data in files.items():
        (ready.path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return ready.path


def mirror(node: Node, remote: Remote) -> Path:
    return node.mirrors.place(remote.repository).git_dir


def refs(node: Node, remote: Remote) -> list[str]:
    return git(mirror(node, remote), "for-each-ref", "--format=%(refname)", "refs/quarterdeck/rescue").split()


async def test_everything_that_differs_can_be_read_from_the_ref_once_the_worktree_is_gone(
    rescue: Rescue, node: Node, remote: Remote
) -> None:
    remote.commit({".gitignore": "*.log\n", "gone": "x\n"})
    path = await prepared(node, remote, {"README.md": "# Changed\n", "new": b"\0\xff binary", "a.log": "noise\n"})
    (path / "tool.sh").write_text("#!/bin/sh\n")
    (path / "tool.sh").chmod(0o755)
    (path / "gone").unlink()
    assert await rescue.rescue(RUN, 1) == REF
    await node.worktrees.release(RUN, 1)
    place = mirror(node, remote)
    assert git(place, "diff", "--name-status", f"{REF}^", REF).split() == [
        *("M", "README.md", "D", "gone", "A", "new", "A", "tool.sh"),
    ]
    assert git(place, "show", f"{REF}:README.md") == "# Changed"
    assert git(place, "ls-tree", REF, "tool.sh").startswith("100755")
    assert git(place, "rev-parse", f"{REF}^") == remote.at("main")
    assert git(place, "show", "--no-patch", "--format=%an|%s", REF) == (
        f"Quarterdeck|Rescue what attempt 1 of run {RUN} left"
    )
    assert git(place, "fsck", "--strict", "--connectivity-only", "--no-dangling") == ""


async def test_nothing_is_kept_of_a_clean_worktree(rescue: Rescue, node: Node, remote: Remote) -> None:
    await prepared(node, remote, {})
    assert await rescue.rescue(RUN, 1) == ""
    assert refs(node, remote) == []


async def test_nothing_is_kept_of_what_postgres_has(rescue: Rescue, node: Node, remote: Remote, stored: Stored) -> None:
    path = await prepared(node, remote, {"new": "x\n"})
    stored.patches = [(await node.worktrees.checkpoint(RUN, 1)).patch]
    assert await rescue.rescue(RUN, 1) == ""
    (path / "new").write_text("and on\n")
    assert await rescue.rescue(RUN, 1) == REF
    assert git(mirror(node, remote), "show", f"{REF}:new") == "and on"


async def test_a_sparse_worktree_of_a_partial_mirror_is_kept_as_a_change_of_the_whole(
    tmp_path: Path, remote: Remote, stored: Stored
) -> None:
    async with git_server(tmp_path / "served") as server:
        served = Remote(server.create("o/n"), remote.work)
        for setting in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            git(served.bare, "config", setting, "true")
        served.commit({"one/a": "1\n", "two/b": "2\n", "two/deep/c": "3\n"})
        here = RemoteAccess(AllowedRemotes.parse("127.0.0.1"), allow_insecure_http=True)
        runner = Git(tmp_path / "home", remotes=here)
        mirrors = Mirrors(tmp_path, runner, options=MirrorOptions(filter="blob:none"))
        worktrees = Worktrees(tmp_path, mirrors, runner)
        repository = parse_repository(server.address("o/n"), allow_local=False)
        ready = await worktrees.prepare(RUN, 1, repository, checkout=CheckoutOptions(path="one"))
        assert not (ready.path / "two").exists()
        (ready.path / "one" / "a").write_text("changed\n")
        (ready.path / "two").mkdir()
        (ready.path / "two" / "new").write_text("x\n")
        rescue = Rescue(tmp_path, runner, worktrees, stored)
        assert await rescue.rescue(RUN, 1) == REF
        await worktrees.release(RUN, 1)
    place = mirrors.place(repository).git_dir
    changed = git(place, "diff-tree", "-r", "--name-status", "--no-renames", f"{REF}^", REF)
    assert changed.split() == ["M", "one/a", "A", "two/new"]
    assert git(place, "show", f"{REF}:one/a") == "changed"


async def test_rescued_twice_is_one_commit(rescue: Rescue, node: Node, remote: Remote) -> None:
    await prepared(node, remote, {"new": "x\n"})
    await rescue.rescue(RUN, 1)
    first = git(mirror(node, remote), "rev-parse", REF)
    await rescue.rescue(RUN, 1)
    assert git(mirror(node, remote), "rev-parse", REF) == first
    kept = await rescue.kept(remote.repository.folder)
    assert (kept.pinned, [(work.ref, work.run_id, work.commit_sha) for work in kept.rescued]) == (
        (RUN,),
        [(REF, RUN, first)],
    )


async def test_what_is_too_large_for_a_patch_is_kept_too(
    rescue: Rescue, node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepared(node, remote, {"new": os.urandom(4096)})
    monkeypatch.setattr(snapshots, "MAX_PATCH_BYTES", 1024)
    assert await rescue.rescue(RUN, 1) == REF


async def test_a_rescued_commit_survives_a_mirror_that_is_made_anew(rescue: Rescue, node: Node, remote: Remote) -> None:
    await prepared(node, remote, {"new": "x\n"})
    await rescue.rescue(RUN, 1)
    await node.worktrees.release(RUN, 1)
    await node.mirrors.rebuild(remote.repository)
    assert git(mirror(node, remote), "show", f"{REF}:new") == "x"


async def test_a_damaged_mirror_takes_nothing_and_says_so(rescue: Rescue, node: Node, remote: Remote) -> None:
    path = await prepared(node, remote, {"new": "x\n"})
    shutil.rmtree(mirror(node, remote) / "objects" / "pack")
    with pytest.raises(GitError):
        await rescue.rescue(RUN, 1)
    assert (path / "new").read_text() == "x\n"


async def test_a_checkout_that_was_never_finished_is_told_from_one_without_changes(rescue: Rescue) -> None:
    with pytest.raises(UnknownWorktreeError):
        await rescue.rescue(RUN, 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "small-disk", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root and the command `mount`")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_loses_nothing(small_disk: Path, rescue: Rescue, node: Node, remote: Remote) -> None:
    (node.root / "mirrors").symlink_to(small_disk)
    data = os.urandom(MIB)
    path = await prepared(node, remote, {"new": data})
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1536 * 1024))
    with pytest.raises(GitError, match="Out of diskspace"):
        await rescue.rescue(RUN, 1)
    assert refs(node, remote) == []
    assert (path / "new").read_bytes() == data
    filler.unlink()
    assert await rescue.rescue(RUN, 1) == REF
    await node.worktrees.release(RUN, 1)
    assert int(git(mirror(node, remote), "cat-file", "-s", f"{REF}:new")) == MIB


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, size=2, name="test")
    yield database
    await database.close()


async def test_nothing_is_kept_of_what_a_checkpoint_says_in_other_words(
    rescue: Rescue, node: Node, remote: Remote, stored: Stored
) -> None:
    """Told of what the file held, vcs makes one hunk where Git makes two."""
    lines = [f"{number}\n" for number in range(40)]
    remote.commit({"text": "".join(lines)})
    path = await prepared(node, remote, {"text": "".join(["first\n", *lines[1:-1], "last\n"])})
    before = Written(b"text", "".join(lines).encode())
    stored.patches = [(await node.worktrees.checkpoint(RUN, 1, written=[before])).patch]
    assert stored.patches[0] != (await node.worktrees.checkpoint(RUN, 1)).patch
    assert await rescue.rescue(RUN, 1) == ""
    (path / "text").write_text("and on\n")
    assert await rescue.rescue(RUN, 1) == REF


async def test_what_a_checkpoint_cannot_have_meant_is_kept(
    rescue: Rescue, node: Node, remote: Remote, stored: Stored
) -> None:
    await prepared(node, remote, {"new": "x\n"})
    stored.patches = [b"no patch"]
    assert await rescue.rescue(RUN, 1) == REF


async def test_what_is_stored_of_a_run_is_told_by_its_bytes(database: Database) -> None:
    domain = Domain(database)
    domain.client = await domain.new_client("tester")
    run, _ = await domain.hand_over()
    rescuing = Rescuing(database)
    assert await rescuing.is_stored(run.hold.run_id, COMMIT.patch)
    assert not await rescuing.is_stored(run.hold.run_id, COMMIT.patch + b"\n")
    assert not await rescuing.is_stored(uuid4(), COMMIT.patch)
    assert await rescuing.checkpointed(run.hold.run_id) == b""
    other = await domain.start()
    await domain.running.checkpoint(other.hold, Checkpoint(tree=SavedTree(b"a patch", {})))
    assert await rescuing.checkpointed(other.hold.run_id) == b"a patch"
