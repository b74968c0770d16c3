"""The same patch on the same base is the same commit, wherever it is made, whatever the worktree holds."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.vcs.errors import PatchRefusedError
from services.vcs.git.trees import CommitMetadata
from services.vcs.worktrees.commits import Committed
from tests.integration.vcs.conftest import METADATA, Node, Remote, git

NAMES = (
    "a",
    "b.txt",
    "dir/a",
    "dir/b.txt",
    "dir/deep/c",
    "ünï",
    "new\nline",
    'quo"te\\',
    "-dash",
    " space ",
    ":(top)x",
    "d",
)
CONTENTS = (
    b"",
    b"one\n",
    b"one\ntwo\nthree\n" * 30,
    b"one\r\ntwo\r\n",
    b"no line end",
    bytes(range(256)),
    b"\0" * 5000,
    b"latin-1 \xe9\n",
    b"lone\rreturn\n",
)
ATTRIBUTES = (
    b"",
    b"* text=auto\n",
    b"* text\n",
    b"* text eol=crlf\n",
    b"*.txt binary\n",
    b"* -diff\n",
    b"* diff\n",
    b"* ident filter=x\n",
)


async def test_nothing_changed_is_no_commit(node: Node, remote: Remote) -> None:
    await node.worktrees.prepare("run", 1, remote.repository)
    assert await node.commits.commit_worktree("run", 1, METADATA) == Committed("", b"", ())


async def test_a_commit_is_what_its_metadata_says(node: Node, remote: Remote) -> None:
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    (ready.path / "new").write_text("x\n")
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    sha = await node.commits.commit_patch(remote.repository, ready.base_sha, committed.patch, METADATA)
    assert sha == committed.sha
    mirror = node.mirrors.place(remote.repository).git_dir
    shown = git(mirror, "show", "--no-patch", "--format=%P|%an|%ae|%ad|%cn|%ce|%cd|%B", "--date=raw", sha)
    date = f"{METADATA.time} +0000"
    assert shown == f"{ready.base_sha}|Ada|ada@example.org|{date}|Ada|ada@example.org|{date}|Change it\n\nBecause."
    later = CommitMetadata("Ada", "ada@example.org", METADATA.time + 1, METADATA.message)
    assert (await node.commits.commit_worktree("run", 1, later)).sha != sha
    assert git(remote.bare, "for-each-ref") == git(remote.bare, "for-each-ref", "refs/heads/main")


async def test_another_node_makes_the_same_commit_though_the_branch_has_moved(
    make_node: Callable[[str], Node], remote: Remote
) -> None:
    one, two = make_node("one"), make_node("two")
    ready = await one.worktrees.prepare("run", 1, remote.repository)
    (ready.path / "README.md").unlink()
    committed = await one.commits.commit_worktree("run", 1, METADATA)
    remote.commit({"README.md": "moved on\n"})
    sha = await two.commits.commit_patch(remote.repository, ready.base_sha, committed.patch, METADATA)
    assert sha == committed.sha


async def test_links_stay_links_in_the_commit(node: Node, remote: Remote) -> None:
    (remote.work / "link").symlink_to("README.md")
    remote.commit({})
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    (ready.path / "new").write_text("x\n")
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    await node.commits.commit_patch(remote.repository, ready.base_sha, committed.patch, METADATA)
    listed = git(node.mirrors.place(remote.repository).git_dir, "ls-tree", committed.sha, "link")
    assert listed.startswith("120000 ")


async def test_a_patch_that_was_cut_short_makes_no_commit(node: Node, remote: Remote) -> None:
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    (ready.path / "new").write_text("x\n" * 100)
    patch = (await node.worktrees.checkpoint("run", 1)).patch
    with pytest.raises(PatchRefusedError, match="cut short"):
        await node.commits.commit_patch(remote.repository, ready.base_sha, patch[:-40], METADATA)


def scramble(folder: Path, chooser: random.Random, attributes: bytes) -> None:
    """Write, delete, link, move and chmod at random; a file may take a folder's place and the other way round."""
    for name in NAMES:
        path = folder / name
        action = chooser.randrange(6)
        if action == 0 or any(parent.is_file() or parent.is_symlink() for parent in path.parents if parent != folder):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if action == 1:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if action == 2:
            path.symlink_to(chooser.choice(("a", "../../x", "/etc/passwd", "dangling ü")))
        else:
            path.write_bytes(chooser.choice(CONTENTS))
            path.chmod(chooser.choice((0o644, 0o755)))
    (folder / ".gitattributes").write_bytes(attributes)


# Examples share one remote and node: each has a branch, a run and a base of its own.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    before=st.sampled_from(ATTRIBUTES),
    after=st.sampled_from(ATTRIBUTES),
)
async def test_any_tree_makes_the_same_commit_from_its_patch(
    node: Node, remote: Remote, seed: int, before: bytes, after: bytes
) -> None:
    chooser = random.Random(seed)
    # What is stored may contradict the attributes: they come after the files.
    scramble(remote.work, chooser, b"")
    remote.commit({})
    base = remote.commit({".gitattributes": before})
    run = f"run-{seed}-{len(node.git.commands)}"
    ready = await node.worktrees.prepare(run, 1, remote.repository, base_sha=base)
    assert (await node.worktrees.checkpoint(run, 1)).patch == b""
    scramble(ready.path, chooser, after)
    committed = await node.commits.commit_worktree(run, 1, METADATA)
    if committed.sha:
        again = await node.commits.commit_patch(remote.repository, base, committed.patch, METADATA)
        assert again == committed.sha
        restored = await node.worktrees.prepare(f"{run}-r", 1, remote.repository, base_sha=base, patch=committed.patch)
        assert restored.base_sha == base
        assert (await node.commits.commit_worktree(f"{run}-r", 1, METADATA)).sha == committed.sha
