"""One folder of a monorepo as a worktree: only it is there, everything else stays in every tree, patch and commit."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.options import MirrorOptions
from services.vcs.worktrees.checkouts import CheckoutOptions
from services.vcs.worktrees.commits import Commits
from services.vcs.worktrees.sparse import PathRefusedError, checked_path
from services.vcs.worktrees.worktrees import Worktrees
from tests.integration.vcs.conftest import METADATA, Node, Remote, content, git

FOLDER = CheckoutOptions(path="apps/web")
OUTSIDE = {"README.md", "src/main.py", "libs/core/a.py", "libs/core/b.py", "apps/api/app.py", "apps/web-old/x"}
INSIDE = {"apps/web/index.js", "apps/web/deep/er/page.js", "apps/web/größe", "apps/Makefile"}
ON_THE_WAY = {"README.md", "apps/Makefile"}


@pytest.fixture
def monorepo(remote: Remote) -> Remote:
    remote.commit({name: f"{name}\n" for name in (OUTSIDE | INSIDE) - {"README.md", "src/main.py"}})
    return remote


async def prepared(node: Node, monorepo: Remote, *, run: str = "run", patch: bytes = b"") -> Path:
    base = git(monorepo.work, "rev-parse", "HEAD")
    ready = await node.worktrees.prepare(run, 1, monorepo.repository, base_sha=base, patch=patch, checkout=FOLDER)
    return ready.path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


async def test_only_the_folder_and_what_is_on_the_way_is_there_and_nothing_counts_as_deleted(
    node: Node, monorepo: Remote
) -> None:
    path = await prepared(node, monorepo)
    assert set(content(path)) == INSIDE | ON_THE_WAY
    for _ in range(2):
        snapshot = await node.worktrees.checkpoint("run", 1)
        assert (snapshot.patch, snapshot.files) == (b"", ())


async def test_the_commit_holds_all_that_was_not_checked_out(node: Node, monorepo: Remote) -> None:
    path = await prepared(node, monorepo)
    (path / "apps/web/index.js").write_text("changed\n")
    (path / "apps/web/deep/er/page.js").unlink()
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    assert {(file.path, file.change) for file in committed.files} == {
        (b"apps/web/index.js", "modified"),
        (b"apps/web/deep/er/page.js", "deleted"),
    }
    base = git(monorepo.work, "rev-parse", "HEAD")
    assert await node.commits.commit_patch(monorepo.repository, base, committed.patch, METADATA) == committed.sha
    mirror = node.mirrors.place(monorepo.repository).git_dir
    listed = set(git(mirror, "ls-tree", "-r", "-z", "--name-only", committed.sha).rstrip("\0").split("\0"))
    assert listed == (OUTSIDE | INSIDE) - {"apps/web/deep/er/page.js"}


ELSEWHERE = {"new.txt": "n\n", "libs/core/a.py": "changed\n", "libs/new/c.py": "new\n", "apps/other/d": "new\n"}


async def test_what_is_written_outside_is_part_of_the_patch_and_comes_back_exactly(
    make_node: Callable[[str], Node], monorepo: Remote
) -> None:
    one, two = make_node("one"), make_node("two")
    path = await prepared(one, monorepo)
    write(path, ELSEWHERE | {"apps/web/new.js": "new\n"})
    (path / "apps/web/index.js").unlink()
    saved = await one.worktrees.checkpoint("run", 1)
    assert {os.fsdecode(file.path) for file in saved.files} == {*ELSEWHERE, "apps/web/new.js", "apps/web/index.js"}
    restored = await prepared(two, monorepo, patch=saved.patch)
    assert content(restored) == content(path)
    assert (await two.worktrees.checkpoint("run", 1)).patch == saved.patch
    made = [await node.commits.commit_worktree("run", 1, METADATA) for node in (one, two)]
    assert made[0].sha == made[1].sha != ""


@pytest.mark.parametrize("restored", [False, True])
async def test_a_file_written_outside_and_removed_again_is_as_in_the_base(
    node: Node, monorepo: Remote, restored: bool
) -> None:
    path = await prepared(node, monorepo)
    write(path, {"libs/core/a.py": "changed\n", "libs/new": "new\n"})
    saved = await node.worktrees.checkpoint("run", 1)
    assert len(saved.files) == 2
    if restored:
        path = await prepared(node, monorepo, run="other", patch=saved.patch)
    (path / "libs/core/a.py").unlink()
    (path / "libs/new").unlink()
    assert (await node.worktrees.checkpoint("other" if restored else "run", 1)).patch == b""


async def test_it_goes_back_to_base_and_patch(node: Node, monorepo: Remote) -> None:
    path = await prepared(node, monorepo)
    write(path, ELSEWHERE)
    before, saved = content(path), await node.worktrees.checkpoint("run", 1)
    write(path, {"left": "x", "libs/core/a.py": "tests\n", "libs/core/b.py": "tests\n", "apps/web/index.js": "tests\n"})
    (path / "new.txt").unlink()
    for _ in range(2):
        await node.worktrees.restore("run", 1, saved.patch)
        assert content(path) == before
        assert (await node.worktrees.checkpoint("run", 1)).patch == saved.patch
    await node.worktrees.restore("run", 1, b"")
    assert set(content(path)) == INSIDE | ON_THE_WAY
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""


async def test_one_that_is_made_anew_is_still_sparse(node: Node, monorepo: Remote) -> None:
    path = await prepared(node, monorepo)
    write(path, ELSEWHERE)
    before, saved = content(path), await node.worktrees.checkpoint("run", 1)
    (path / "README.md").unlink()
    os.mkfifo(path / "README.md")
    await node.worktrees.restore("run", 1, saved.patch)
    assert content(path) == before
    assert (await node.worktrees.checkpoint("run", 1)).patch == saved.patch


async def test_a_patch_that_deletes_outside_of_the_folder_is_restored(node: Node, monorepo: Remote) -> None:
    base = git(monorepo.work, "rev-parse", "HEAD")
    whole = await node.worktrees.prepare("whole", 1, monorepo.repository, base_sha=base)
    (whole.path / "libs/core/b.py").unlink()
    (whole.path / "apps/api/app.py").rename(whole.path / "apps/api/moved.py")
    saved = await node.worktrees.checkpoint("whole", 1)
    path = await prepared(node, monorepo, patch=saved.patch)
    assert set(content(path)) == INSIDE | ON_THE_WAY | {"apps/api/moved.py"}
    assert (await node.worktrees.checkpoint("run", 1)).patch == saved.patch


async def test_a_file_in_the_place_of_a_folder_that_is_not_there_shows_what_it_replaces(
    node: Node, monorepo: Remote
) -> None:
    path = await prepared(node, monorepo)
    (path / "libs").write_text("a file\n")
    files = (await node.worktrees.checkpoint("run", 1)).files
    assert {(file.path, file.change) for file in files} == {
        (b"libs", "added"),
        (b"libs/core/a.py", "deleted"),
        (b"libs/core/b.py", "deleted"),
    }


async def test_a_repository_made_inside_keeps_its_files(node: Node, monorepo: Remote) -> None:
    path = await prepared(node, monorepo)
    for nested in (path / "apps/web/nested", path / "libs/nested"):
        nested.mkdir(parents=True)
        git(nested, "init", "--quiet")
        (nested / "file").write_text("x\n")
    (path / "libs/core").mkdir()
    (path / "libs/core/a.py").write_text("changed\n")
    files = (await node.worktrees.checkpoint("run", 1)).files
    assert {file.path for file in files} == {b"apps/web/nested/file", b"libs/nested/file", b"libs/core/a.py"}


async def test_a_change_after_the_second_of_the_checkout_is_seen(node: Node, monorepo: Remote) -> None:
    path = await prepared(node, monorepo)
    (path / "apps/web/index.js").write_text("apps/web/iNdex.js\n")
    assert len((await node.worktrees.checkpoint("run", 1)).files) == 1


async def test_a_partial_mirror_gets_what_is_compared_with_what_was_written_outside(
    monorepo: Remote, tmp_path: Path
) -> None:
    git(monorepo.bare, "config", "uploadpack.allowFilter", "true")
    root = tmp_path / "partial"
    runner = Git(root / "home", allow_local=True)
    mirrors = Mirrors(root, runner, options=MirrorOptions("blob:none"))
    worktrees = Worktrees(root, mirrors, runner)
    path = (await worktrees.prepare("run", 1, monorepo.repository, checkout=FOLDER)).path
    assert set(content(path)) == INSIDE | ON_THE_WAY
    write(path, ELSEWHERE)
    saved = await worktrees.checkpoint("run", 1)
    assert {os.fsdecode(file.path) for file in saved.files} == set(ELSEWHERE)
    before = content(path)
    (path / "libs/core/a.py").write_text("tests\n")
    await worktrees.restore("run", 1, saved.patch)
    assert content(path) == before
    committed = await Commits(runner, mirrors, worktrees).commit_worktree("run", 1, METADATA)
    assert committed.patch == saved.patch
    assert committed.sha


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no/such", "is not in commit"),
        ("README.md", "is a file"),
        ("apps/web/index.js", "is a file"),
        ("README.md/x", "is not in commit"),
    ],
)
async def test_a_path_that_is_no_folder_is_refused(node: Node, monorepo: Remote, path: str, words: str) -> None:
    with pytest.raises(PathRefusedError, match=words):
        await node.worktrees.prepare("run", 1, monorepo.repository, checkout=CheckoutOptions(path=path))
    assert node.leftovers() == []
    assert git(node.mirrors.place(monorepo.repository).git_dir, "for-each-ref", "refs/quarterdeck") == ""


MALFORMED = ("/apps", "apps/../src", "..", "apps//web", "./apps", ".git", "a/.GIT/b", "x" * 1001)
UNFIT = ("-apps", "a*", "a?", "a[b]", "a\\b", "a\nb", "a\0b", "\udcff")


@pytest.mark.parametrize("path", [*MALFORMED, *UNFIT])
async def test_what_cannot_name_a_folder_is_refused(node: Node, monorepo: Remote, path: str) -> None:
    with pytest.raises(PathRefusedError):
        await node.worktrees.prepare("run", 1, monorepo.repository, checkout=CheckoutOptions(path=path))
    assert node.git.commands == [], "before anything was fetched"


def test_slashes_at_the_end_are_none_of_it() -> None:
    assert checked_path("apps/web//") == "apps/web"
    assert checked_path("") == ""
