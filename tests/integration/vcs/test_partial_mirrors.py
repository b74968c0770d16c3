"""Mirrors without content or history: what is missing is fetched at once and before it is needed, never by accident."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.vcs.errors import GitError
from services.vcs.git.push import push
from services.vcs.git.runner import Place
from services.vcs.git.trees import tree_of_patch
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.objects import missing_blobs
from services.vcs.mirrors.options import MirrorOptions
from services.vcs.worktrees.commits import Commits
from services.vcs.worktrees.worktrees import Worktrees
from tests.integration.vcs.conftest import METADATA, Node, RecordingGit, Remote, git

PARTIAL = MirrorOptions("blob:none")
SHALLOW = MirrorOptions(depth=1)
BOTH = MirrorOptions("blob:none", 1)
SECOND = timedelta(seconds=30)
BRANCH = "quarterdeck/change"


@pytest.fixture
def make_lean(tmp_path: Path) -> Callable[..., Node]:
    def make(options: MirrorOptions, name: str = "lean") -> Node:
        root = tmp_path / name
        git = RecordingGit(root / "home", allow_local=True)
        git.commands = []
        mirrors = Mirrors(root, git, options=options)
        worktrees = Worktrees(root, mirrors, git)
        return Node(root, git, mirrors, worktrees, Commits(git, mirrors, worktrees))

    return make


@pytest.fixture
def remote(remote: Remote) -> Remote:
    """Three commits on main, a folder in a folder, and a server that filters, as the large forges do."""
    git(remote.bare, "config", "uploadpack.allowFilter", "true")
    remote.commit({"src/deep/er.py": "er\n", "docs/big.md": "big\n" * 999, "docs/other/page.md": "page\n"})
    remote.commit({"README.md": "# Demo, again\n", "src/deep/er.py": "er, again\n"})
    return remote


def fetches(node: Node) -> int:
    return sum("fetch" in command for command in node.git.commands)


async def missing(node: Node, remote: Remote, sha: str) -> set[str]:
    """The names of the files whose content the mirror has not."""
    place = node.mirrors.place(remote.repository)
    ids = await missing_blobs(node.git, place, sha, ())
    lines = git(remote.work, "ls-tree", "-r", sha).splitlines()
    return {line.split("\t")[1] for line in lines if line.split()[2] in ids}


EVERYTHING = {"README.md", "src/main.py", "src/deep/er.py", "docs/big.md", "docs/other/page.md"}


async def test_content_comes_in_one_fetch_when_it_is_asked_for(make_lean, remote: Remote) -> None:
    node = make_lean(PARTIAL)
    base = await node.mirrors.fetch(remote.repository, pin="run")
    assert await missing(node, remote, base.sha) == EVERYTHING
    await node.mirrors.complete(remote.repository, base.sha)
    assert await missing(node, remote, base.sha) == set()
    assert fetches(node) == 2
    node.git.commands.clear()
    await node.mirrors.complete(remote.repository, base.sha)
    assert node.git.commands == []


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("src/deep", {"docs/big.md", "docs/other/page.md"}),
        ("docs/other", {"src/main.py", "src/deep/er.py"}),
        ("docs/big.md", {"src/main.py", "src/deep/er.py", "docs/other/page.md"}),
        ("nowhere", EVERYTHING - {"README.md"}),
    ],
)
async def test_a_path_needs_what_is_beneath_and_beside_it(make_lean, remote: Remote, path: str, left: set[str]) -> None:
    node = make_lean(PARTIAL)
    base = await node.mirrors.fetch(remote.repository)
    await node.mirrors.complete(remote.repository, base.sha, paths=(path,))
    assert await missing(node, remote, base.sha) == left


async def test_only_large_files_stay_behind_a_limit(make_lean, remote: Remote) -> None:
    node = make_lean(MirrorOptions("blob:limit=1k"))
    base = await node.mirrors.fetch(remote.repository)
    assert await missing(node, remote, base.sha) == {"docs/big.md"}
    await node.mirrors.complete(remote.repository, base.sha)
    assert await missing(node, remote, base.sha) == set()


async def test_a_gap_is_an_error_at_once_and_never_a_fetch(make_lean, remote: Remote, tmp_path: Path) -> None:
    node = make_lean(PARTIAL)
    base = await node.mirrors.fetch(remote.repository)
    borrower = attempt(tmp_path / "attempt", node.mirrors.place(remote.repository), base.sha, "src")
    blob = git(remote.work, "rev-parse", "HEAD:docs/big.md")
    for place in (node.mirrors.place(remote.repository), borrower):
        with pytest.raises(GitError) as caught:
            await node.git.run("cat-file", "blob", blob, place=place, timeout=SECOND)
        assert "promisor" not in str(caught.value)
        assert str(remote.bare) not in str(caught.value)
    with pytest.raises(GitError, match="unable to read"):
        await node.git.run("read-tree", "--reset", "-u", base.sha, place=borrower, timeout=SECOND)


def attempt(root: Path, mirror: Place, sha: str, path: str) -> Place:
    """A repository of an attempt: it borrows the mirror's objects, knows no remote, and shows one folder only."""
    git_dir, work_tree = root / "git", root / "worktree"
    for folder in ("refs", "objects/info", "info"):
        (git_dir / folder).mkdir(parents=True)
    work_tree.mkdir()
    (git_dir / "config").write_text(
        "[core]\n\trepositoryFormatVersion = 0\n\tbare = false\n\tsparseCheckout = true\n\tsparseCheckoutCone = true\n"
    )
    (git_dir / "info/sparse-checkout").write_text(f"/*\n!/*/\n/{path}/\n")
    (git_dir / "objects/info/alternates").write_text(f"{mirror.git_dir / 'objects'}\n")
    (git_dir / "HEAD").write_text(f"{sha}\n")
    return Place(git_dir, work_tree)


async def test_a_sparse_attempt_works_with_its_folder_alone(make_lean, remote: Remote, tmp_path: Path) -> None:
    """Everything that worktrees do in an attempt's repository, where most content is missing."""
    node = make_lean(PARTIAL)
    base = await node.mirrors.fetch(remote.repository)
    await node.mirrors.complete(remote.repository, base.sha, paths=("src",))
    place = attempt(tmp_path / "attempt", node.mirrors.place(remote.repository), base.sha, "src")
    shutil.move(remote.bare, tmp_path / "away")

    async def run(*arguments: str, at: Place = place) -> str:
        output: bytes = await node.git.run(*arguments, place=at, timeout=SECOND)
        return output.decode()

    await run("read-tree", "--reset", "-u", base.sha)
    assert place.work_tree is not None
    names = {str(path.relative_to(place.work_tree)) for path in place.work_tree.rglob("*") if path.is_file()}
    assert names == {"README.md", "src/main.py", "src/deep/er.py"}
    (place.work_tree / "src/main.py").write_text("print('changed')\n")
    (place.work_tree / "src/new.py").write_text("new\n")
    (place.work_tree / "README.md").unlink()
    await run("add", "--all", "--", ".")
    diff = ("diff-index", "--cached", "--no-renames", base.sha)
    changes = await run(*diff, "--name-status")
    assert changes.split() == ["D", "README.md", "M", "src/main.py", "A", "src/new.py"]
    assert (await run(*diff, "-M", "--raw", "--numstat")).count("\n") == 6
    patch = (await run(*diff, "-p", "--binary", "--full-index")).encode()
    tree = (await run("write-tree")).strip()
    assert await tree_of_patch(node.git, replace(place, work_tree=None), base.sha, patch) == tree
    await run("read-tree", "--reset", "-u", base.sha)
    assert (place.work_tree / "src/main.py").read_text() == "print('hello')\n"


async def test_a_patch_is_made_a_commit_where_only_its_files_came(make_lean, make_node, remote: Remote) -> None:
    """Another node publishes: nothing of the worktree is there, and no more is fetched than the patch needs."""
    whole = make_node("whole")
    path = (await whole.worktrees.prepare("run", 1, remote.repository)).path
    (path / "src/deep/er.py").write_text("changed\n")
    (path / "src/deep/new name.py").write_text("new\n")
    committed = await whole.commits.commit_worktree("run", 1, METADATA)
    base_sha = git(remote.work, "rev-parse", "HEAD")
    for options in (PARTIAL, BOTH, SHALLOW):
        node = make_lean(options, f"lean-{options.filter}-{options.depth}")
        await node.mirrors.fetch(remote.repository, sha=base_sha)
        await node.mirrors.complete(remote.repository, base_sha, patch=committed.patch)
        if options.filter:
            assert await missing(node, remote, base_sha) == {"docs/big.md", "docs/other/page.md"}
        sha = await node.commits.commit_patch(remote.repository, base_sha, committed.patch, METADATA)
        assert sha == committed.sha
        await put(node, remote, sha)
        assert remote.at(BRANCH) == sha
        git(remote.bare, "fsck", "--strict", "--connectivity-only")
        git(remote.bare, "branch", "-D", BRANCH)


async def put(node: Node, remote: Remote, sha: str) -> None:
    mirror = node.mirrors.place(remote.repository)
    await push(node.git, mirror, remote.repository, branch=BRANCH, commit_sha=sha, expected_remote_sha="")


@pytest.mark.parametrize("options", [PARTIAL, SHALLOW, BOTH], ids=["partial", "shallow", "both"])
async def test_a_push_works_after_the_branch_moved_on(make_lean, remote: Remote, options: MirrorOptions) -> None:
    node = make_lean(options)
    base = await node.mirrors.fetch(remote.repository, pin="run")
    await node.mirrors.complete(remote.repository, base.sha)
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    (path / "src/main.py").write_text("changed\n")
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    remote.commit({"docs/big.md": "rewritten\n"})
    remote.commit({"docs/big.md": "rewritten again\n"})
    sha = await node.commits.commit_patch(remote.repository, base.sha, committed.patch, METADATA)
    await put(node, remote, sha)
    assert remote.at(BRANCH) == sha
    git(remote.bare, "fsck", "--strict", "--connectivity-only")


async def test_a_short_history_grows_by_what_is_asked_for(make_lean, remote: Remote) -> None:
    git(remote.work, "tag", "v1", "HEAD~2")
    git(remote.work, "push", "-q", str(remote.bare), "v1")
    head, older, oldest = (git(remote.work, "rev-parse", f"HEAD~{n}") for n in range(3))
    node = make_lean(SHALLOW)
    mirror = node.mirrors.place(remote.repository).git_dir
    assert (await node.mirrors.fetch(remote.repository)).sha == head
    assert git(mirror, "rev-list", "--all") == head
    assert (await node.mirrors.fetch(remote.repository, sha=older, pin="run")).sha == older
    assert (await node.mirrors.fetch(remote.repository, ref="v1")).sha == oldest
    assert set(git(mirror, "rev-list", "--all").split()) == {head, older, oldest}
    moved = remote.commit({"new": "1"})
    assert (await node.mirrors.fetch(remote.repository)).sha == moved
    ready = await node.worktrees.prepare("run", 1, remote.repository, base_sha=older)
    assert (ready.path / "README.md").read_text() == "# Demo\n"
    git(mirror, "fsck", "--strict")


async def test_later_fetches_and_many_packs_leave_a_partial_mirror_partial(
    make_lean, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.vcs.mirrors.downloads.MAX_PACKS", 3)
    node = make_lean(PARTIAL)
    base = await node.mirrors.fetch(remote.repository, pin="run")
    await node.mirrors.complete(remote.repository, base.sha)
    for number in range(5):
        sha = remote.commit({"docs/big.md": f"{number}\n" * 999})
        assert (await node.mirrors.fetch(remote.repository)).sha == sha
    assert await missing(node, remote, sha) == {"docs/big.md"}
    await node.mirrors.complete(remote.repository, base.sha)
    assert await missing(node, remote, base.sha) == set()
    packs = node.mirrors.place(remote.repository).git_dir / "objects/pack"
    assert len(list(packs.glob("*.pack"))) <= 4


@pytest.mark.parametrize("options", [PARTIAL, SHALLOW, BOTH], ids=["partial", "shallow", "both"])
async def test_a_rebuild_keeps_pinned_and_rescued_work(make_lean, remote: Remote, options: MirrorOptions) -> None:
    node = make_lean(options)
    lost = remote.commit({"only": "here\n"})
    await node.mirrors.fetch(remote.repository, pin="run")
    await node.mirrors.complete(remote.repository, lost, paths=("only",))
    mirror = node.mirrors.place(remote.repository).git_dir
    rescued = git(mirror, "commit-tree", f"{lost}^{{tree}}", "-p", lost, "-m", "Rescued")
    git(mirror, "update-ref", "refs/quarterdeck/rescue/old/1", rescued)
    # The commit before it goes, too: where history is short it is in neither mirror.
    git(remote.work, "reset", "-q", "--hard", "HEAD~2")
    git(remote.work, "push", "-qf", str(remote.bare), "HEAD:main")
    git(remote.bare, "reflog", "expire", "--expire=now", "--all")
    git(remote.bare, "gc", "-q", "--prune=now")
    await node.mirrors.rebuild(remote.repository)
    assert git(mirror, "rev-parse", "refs/quarterdeck/base/run") == lost
    assert git(mirror, "show", "refs/quarterdeck/rescue/old/1:only") == "here"
    remote.commit({"newer": "1"})
    await node.mirrors.fetch(remote.repository)
    await node.mirrors.complete(remote.repository, git(remote.work, "rev-parse", "HEAD"))


async def test_content_comes_into_a_mirror_that_was_damaged_meanwhile(make_lean, remote: Remote) -> None:
    node = make_lean(PARTIAL)
    base = await node.mirrors.fetch(remote.repository, pin="run")
    for pack in node.mirrors.place(remote.repository).git_dir.glob("objects/pack/*.pack"):
        pack.unlink()
    await node.mirrors.complete(remote.repository, base.sha)
    assert await missing(node, remote, base.sha) == set()
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    assert (ready.path / "docs/big.md").exists()


async def test_a_rebuild_brings_the_content_that_runs_under_way_borrow(make_lean, remote: Remote) -> None:
    node = make_lean(PARTIAL)
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    await node.mirrors.complete(remote.repository, ready.base_sha)
    remote.commit({"docs/big.md": "other\n"})
    await node.mirrors.fetch(remote.repository)
    await node.mirrors.rebuild(remote.repository)
    assert await missing(node, remote, ready.base_sha) == set()
    (ready.path / "docs/big.md").write_text("changed\n")
    assert b"-big" in (await node.worktrees.checkpoint("run", 1)).patch


async def test_a_server_that_cannot_filter_sends_everything(make_lean, remote: Remote) -> None:
    git(remote.bare, "config", "uploadpack.allowFilter", "false")
    node = make_lean(PARTIAL)
    base = await node.mirrors.fetch(remote.repository)
    assert await missing(node, remote, base.sha) == set()
    await node.mirrors.complete(remote.repository, base.sha)
    assert fetches(node) == 1


async def test_a_mirror_made_with_less_is_made_anew_with_its_pins(make_lean, remote: Remote) -> None:
    lean = make_lean(BOTH)
    base = await lean.mirrors.fetch(remote.repository, pin="run")
    whole = make_lean(MirrorOptions())
    assert (await whole.mirrors.fetch(remote.repository)).sha == base.sha
    mirror = whole.mirrors.place(remote.repository).git_dir
    assert git(mirror, "rev-parse", "refs/quarterdeck/base/run") == base.sha
    assert git(mirror, "rev-list", "--count", base.sha) == "3"
    git(mirror, "fsck", "--strict")
    again = make_lean(BOTH)
    await again.mirrors.fetch(remote.repository)
    assert fetches(again) == 0, "one that holds more is as good"


async def test_a_repository_with_submodules_is_checked_without_their_description(make_lean, remote: Remote) -> None:
    """`.gitmodules` is a file that Git looks into where it checks what it fetches: here it is not there yet."""
    (remote.work / ".gitmodules").write_text('[submodule "a"]\n\tpath = a\n\turl = ../a\n')
    sha = git(remote.work, "rev-parse", "HEAD")
    git(remote.work, "update-index", "--add", "--cacheinfo", f"160000,{sha},a")
    head = remote.commit({})
    node = make_lean(PARTIAL)
    assert (await node.mirrors.fetch(remote.repository)).sha == head
    await node.mirrors.complete(remote.repository, head)
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    assert (ready.path / ".gitmodules").exists()


@pytest.mark.parametrize("wrong", ["blob:some", "tree:0", "blob:limit=", "--all"])
def test_other_filters_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no filter"):
        MirrorOptions(wrong)
