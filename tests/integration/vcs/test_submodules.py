"""Submodules: off unless asked for; their files are there for reading, and nothing done inside them is in a patch."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.vcs.errors import CloneFailedError, RepositoryRefusedError
from services.vcs.git.repositories import parse_repository
from services.vcs.worktrees import submodules
from services.vcs.worktrees.checkouts import CheckoutOptions
from services.vcs.worktrees.submodules import resolved
from tests.integration.vcs.conftest import METADATA, Node, Remote, content, git

ASKED = CheckoutOptions(submodules=True)
MakeRemote = Callable[[str], Remote]


def link(parent: Remote, path: str, child: Remote, url: str = "") -> None:
    """Record ``child`` at ``path``, as `git submodule add` does; pushed."""
    sha = git(child.work, "rev-parse", "HEAD")
    git(parent.work, "update-index", "--add", "--cacheinfo", f"160000,{sha},{path}")
    entry = f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url or child.bare}\n'
    with (parent.work / ".gitmodules").open("a") as file:
        file.write(entry)
    git(parent.work, "add", ".gitmodules")
    git(parent.work, "commit", "--quiet", "--message", "Add a submodule")
    parent.push()


@pytest.fixture
def library(make_remote: MakeRemote) -> Remote:
    """A submodule with one of its own, by a relative address."""
    inner, library = make_remote("inner"), make_remote("library")
    inner.commit({"deep.txt": "deep\n"})
    library.commit({"lib.py": "lib\n", "src/code.py": "code\n", ".gitignore": "*.log\n"})
    link(library, "vendor/inner", inner, "../inner.git")
    return library


@pytest.fixture
def project(remote: Remote, library: Remote) -> Remote:
    link(remote, "third/library", library)
    # Moved on since: the recorded commit counts.
    library.commit({"lib.py": "newer\n"})
    return remote


FILES = {"third/library/lib.py", "third/library/src/code.py", "third/library/vendor/inner/deep.txt"}


async def test_they_are_not_checked_out_unless_asked_for(node: Node, project: Remote) -> None:
    path = (await node.worktrees.prepare("run", 1, project.repository)).path
    assert list((path / "third/library").iterdir()) == []
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""
    (path / "third/library/new").write_text("lost?\n")
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    assert (committed.sha, committed.patch) == ("", b"")
    assert [note.split()[0] for note in committed.notes] == ["third/library"]


async def test_their_files_are_those_of_the_recorded_commits(node: Node, project: Remote) -> None:
    path = (await node.worktrees.prepare("run", 1, project.repository, checkout=ASKED)).path
    assert set(content(path)) >= FILES
    assert (path / "third/library/lib.py").read_text() == "lib\n"
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    assert (committed.sha, committed.patch, committed.notes) == ("", b"", ())
    assert node.git.count("submodule") == 0


def change_inside(path: Path) -> None:
    (path / "third/library/lib.py").write_text("changed\n")
    (path / "third/library/src/code.py").unlink()
    (path / "third/library/new").write_text("new\n")
    (path / "third/library/vendor/inner/deep.txt").write_text("changed\n")


async def test_what_is_changed_inside_them_is_in_no_patch_and_told_of(node: Node, project: Remote) -> None:
    path = (await node.worktrees.prepare("run", 1, project.repository, checkout=ASKED)).path
    change_inside(path)
    (path / "own.txt").write_text("own\n")
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    assert [file.path for file in committed.files] == [b"own.txt"]
    assert b"third" not in committed.patch
    assert [note.split()[0] for note in committed.notes] == ["third/library", "third/library/vendor/inner"]
    assert "its own repository" in committed.notes[0]


@pytest.mark.parametrize("checkout", [ASKED, CheckoutOptions()], ids=["asked", "off"])
async def test_a_repository_made_inside_one_does_not_move_its_commit(
    node: Node, project: Remote, checkout: CheckoutOptions
) -> None:
    path = (await node.worktrees.prepare("run", 1, project.repository, checkout=checkout)).path
    folder = path / "third/library"
    git(folder, "init", "--quiet")
    (folder / "made").write_text("x\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Mine")
    (path / "own.txt").write_text("own\n")
    for snapshot in (
        await node.worktrees.checkpoint("run", 1),
        await node.commits.commit_worktree("run", 1, METADATA),
    ):
        assert [file.path for file in snapshot.files] == [b"own.txt"]
        assert b"Subproject" not in snapshot.patch


async def test_restoring_puts_them_back_too(node: Node, project: Remote) -> None:
    path = (await node.worktrees.prepare("run", 1, project.repository, checkout=ASKED)).path
    before = content(path)
    change_inside(path)
    await node.worktrees.restore("run", 1, b"")
    assert content(path) == before


async def test_a_link_in_the_place_of_one_is_not_followed(node: Node, project: Remote, tmp_path: Path) -> None:
    path = (await node.worktrees.prepare("run", 1, project.repository, checkout=ASKED)).path
    before, outside = content(path), tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept\n")
    git(path, "init", "--quiet", str(tmp_path / "x"))
    for name in ("third/library/vendor", "third/library"):
        (path / name).rename(tmp_path / name.replace("/", "-"))
        (path / name).symlink_to(outside)
        await node.worktrees.restore("run", 1, b"")
        assert content(path) == before
        assert content(outside) == {"kept": (0, b"kept\n")}


async def test_deleting_one_is_a_change_like_any_other(node: Node, project: Remote) -> None:
    path = (await node.worktrees.prepare("run", 1, project.repository, checkout=ASKED)).path
    (path / "third").rename(path.parent / "gone")
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    assert [(file.path, file.change) for file in committed.files] == [(b"third/library", "deleted")]
    assert committed.notes == ()
    await node.worktrees.restore("run", 1, b"")
    assert set(content(path)) >= FILES
    for _ in range(2):
        await node.worktrees.restore("run", 1, committed.patch)
        assert (await node.worktrees.checkpoint("run", 1)).patch == committed.patch
        assert not (path / "third").exists()


async def test_only_those_of_a_sparse_folder_are_checked_out(node: Node, project: Remote, library: Remote) -> None:
    link(project, "apps/library", library)
    options = CheckoutOptions(path="apps", submodules=True)
    path = (await node.worktrees.prepare("run", 1, project.repository, checkout=options)).path
    assert (path / "apps/library/lib.py").read_text() == "newer\n"
    assert not (path / "third").exists()
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""


@pytest.mark.parametrize("url", ["ext::sh -c touch% x", "git@h:a/../b", "https://user:secret@example.org/a/b"])
async def test_an_address_that_may_not_be_fetched_is_refused(
    node: Node, remote: Remote, library: Remote, url: str
) -> None:
    link(remote, "lib", library, url)
    with pytest.raises(RepositoryRefusedError, match="the submodule lib cannot be fetched") as caught:
        await node.worktrees.prepare("run", 1, remote.repository, checkout=ASKED)
    assert "secret" not in str(caught.value)
    assert node.leftovers() == []


async def test_one_that_cannot_be_fetched_says_which(node: Node, remote: Remote, library: Remote) -> None:
    link(remote, "lib", library, str(remote.bare) + "-none")
    with pytest.raises(CloneFailedError, match="the submodule lib"):
        await node.worktrees.prepare("run", 1, remote.repository, checkout=ASKED)


async def test_too_many_and_too_deep_are_refused(node: Node, project: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value in (("MAX_SUBMODULES", 1), ("MAX_LEVELS", 1)):
        with monkeypatch.context() as patched:
            patched.setattr(submodules, limit, value)
            with pytest.raises(CloneFailedError, match="leave submodules off"):
                await node.worktrees.prepare("run", 1, project.repository, checkout=ASKED)
    assert node.leftovers() == []


@pytest.mark.parametrize(
    ("parent", "address", "expected"),
    [
        ("https://h/o/n", "../x.git", "https://h/o/x.git"),
        ("https://h/o/n.git/", "../../p/x", "https://h/p/x"),
        ("https://h/o/n", "./x", "https://h/o/n/x"),
        ("git@h:o/n.git", "../x", "git@h:o/x"),
        ("git@h:n", "../x", "git@h:x"),
        ("https://h/o/n", "https://other/x/y", "https://other/x/y"),
    ],
)
def test_relative_addresses_are_taken_from_the_parents(parent: str, address: str, expected: str) -> None:
    assert resolved(parent, address) == expected


async def test_a_repository_from_elsewhere_names_no_folder_of_this_machine(node: Node, library: Remote) -> None:
    parent = submodules._Parent(
        parse_repository("https://example.org/a/b", allow_local=False),
        node.mirrors.place(library.repository),
        "",
    )
    with pytest.raises(RepositoryRefusedError, match="not allowed"):
        submodules._parsed(node.git, parent, "lib", str(library.bare))
