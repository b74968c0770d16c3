"""Whatever an agent leaves in a worktree, the next run finds what a fresh checkout gives, and nothing else."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from services.vcs.worktrees import spares
from tests.integration.vcs.conftest import Node, Remote
from tests.integration.vcs.spare_nodes import identity, listing, spare_keeping

FILES = {
    ".gitignore": "ignored/\n*.log\n",
    "same/one/name": "1111\n",
    "same/two/name": "2222\n",
    "src/deep/er/file": "deep\n",
    "untouched": "as it was\n",
}
KEPT, GIVEN_UP = True, False
OUTSIDE = "outside\n"


@pytest.fixture
def tree(remote: Remote) -> Remote:
    (remote.work / "script").write_text("#!/bin/sh\n")
    (remote.work / "script").chmod(0o755)
    (remote.work / "link").symlink_to("README.md")
    remote.commit(dict(FILES))
    return remote


def outside(path: Path) -> Path:
    """A folder that is none of the worktree's, with files named as some of its own."""
    folder = path.parents[2] / "outside"
    (folder / "er").mkdir(parents=True, exist_ok=True)
    for name in ("main.py", "er/file"):
        (folder / name).write_text(OUTSIDE)
    return folder


def change_in_place(path: Path) -> None:
    """The size stays, and so does the time of the change, as far as anybody can set it."""
    for name in ("README.md", "src/deep/er/file"):
        status = (path / name).stat()
        (path / name).write_bytes((path / name).read_bytes()[::-1])
        os.utime(path / name, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (path / name).stat().st_mtime_ns == status.st_mtime_ns


def add_files(path: Path) -> None:
    for name in (b"new", b"src/new", b"ignored/new", b"src/x.log", b"a\nline", b"\xff\xfe", b"-rf", b"\\ \"'\t*?[x]"):
        stray = path / os.fsdecode(name)
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("left")
    (path / "empty/folders").mkdir(parents=True)
    (path / "src/deep/.gitignore").write_text("*\n")


def add_git(path: Path) -> None:
    """Where `git clean` never looks."""
    (path / ".git").unlink()
    for folder in (path, path / "src", path / "new"):
        (folder / ".git/hooks").mkdir(parents=True)
        (folder / ".git/HEAD").write_text("ref: refs/heads/main\n")
        (folder / ".git/hooks/post-checkout").write_text("#!/bin/sh\n")
    (path / "src/deep/.git").write_text("gitdir: /somewhere\n")
    (path / "src/deep/er/.GIT").write_text("x")


def remove(path: Path) -> None:
    for name in ("README.md", ".gitignore", ".git"):
        (path / name).unlink()
    shutil.rmtree(path / "src")


def exchange_files_and_folders(path: Path) -> None:
    (path / "README.md").unlink()
    (path / "README.md/in").mkdir(parents=True)
    (path / "README.md/in/file").write_text("x")
    shutil.rmtree(path / "src/deep")
    (path / "src/deep").write_text("x")


def put_links_in_place(path: Path) -> None:
    shutil.rmtree(path / "src/deep")
    (path / "src/deep").symlink_to(outside(path))
    (path / "src/main.py").unlink()
    (path / "src/main.py").symlink_to(outside(path) / "main.py")
    (path / "link").unlink()
    (path / "link").symlink_to("README.md")
    (path / "dangling").symlink_to("nowhere")


def link_hard(path: Path) -> None:
    (path / "README.md").unlink()
    (path / "README.md").hardlink_to(outside(path) / "main.py")
    (outside(path) / "mine").hardlink_to(path / "script")
    (path / "same/two/name").unlink()
    (path / "same/two/name").hardlink_to(path / "same/one/name")


def put_pipes_and_sockets(path: Path) -> None:
    (path / "README.md").unlink()
    os.mkfifo(path / "README.md")
    os.mkfifo(path / "src/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        directory = os.open(path, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{directory}/socket")  # its own name may be too long
        os.close(directory)


def change_modes_of_files(path: Path) -> None:
    for name, mode in (("README.md", 0o4755), ("src/main.py", 0o600), ("script", 0o644), ("link", 0o000)):
        (path / name).chmod(mode)


def set_attributes_of_a_file(path: Path) -> None:
    os.setxattr(path / "README.md", "user.left", b"x")


def rename_folders(path: Path) -> None:
    """No file changes by that, nor is its time: it only lies elsewhere."""
    (path / "same/one").rename(path / "same/three")
    (path / "same/two").rename(path / "same/one")
    (path / "same/three").rename(path / "same/two")


def rename_files(path: Path) -> None:
    (path / "same/one/name").rename(path / "third")
    (path / "same/two/name").rename(path / "same/one/name")
    (path / "third").rename(path / "same/two/name")


def set_sticky_folder(path: Path) -> None:
    (path / "src").chmod(0o1777)


def close_folder(path: Path) -> None:
    (path / "src").chmod(0)


def open_root(path: Path) -> None:
    path.chmod(0o777)


def set_attributes_of_a_folder(path: Path) -> None:
    os.setxattr(path / "src", "user.left", b"x")


def give_folder_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives folders away")
    os.chown(path / "src", 65_534, 65_534)


@pytest.mark.parametrize(
    ("attack", "is_used"),
    [
        (change_in_place, KEPT),
        (add_files, KEPT),
        (add_git, KEPT),
        (remove, KEPT),
        (exchange_files_and_folders, KEPT),
        (put_links_in_place, KEPT),
        (link_hard, KEPT),
        (put_pipes_and_sockets, KEPT),
        (change_modes_of_files, KEPT),
        (set_attributes_of_a_file, KEPT),
        (rename_folders, KEPT),
        (rename_files, KEPT),
        (set_sticky_folder, GIVEN_UP),
        (close_folder, GIVEN_UP),
        (open_root, GIVEN_UP),
        (set_attributes_of_a_folder, GIVEN_UP),
        (give_folder_away, GIVEN_UP),
    ],
    ids=lambda value: getattr(value, "__name__", "used" if value else "given-up"),
)
async def test_the_next_run_finds_a_fresh_checkout(
    node: Node, tree: Remote, monkeypatch: pytest.MonkeyPatch, attack: Callable[[Path], None], is_used: bool
) -> None:
    monkeypatch.setattr(spares, "LEAST_FILES", 1)
    mine, others = spare_keeping(node, "mine"), spare_keeping(node, "others")
    expected = listing((await others.worktrees.prepare("fresh", 1, tree.repository)).path)
    first = (await mine.worktrees.prepare("first", 1, tree.repository)).path
    was = identity(first / "untouched")
    attack(first)
    await mine.worktrees.release("first", 1, reusable=True)

    path = (await mine.worktrees.prepare("next", 1, tree.repository)).path
    assert (identity(path / "untouched") == was) is is_used
    assert listing(path) == expected
    assert (path / ".git").read_text() == f"gitdir: {mine.root}/state/next/1/git\n"
    assert (await mine.worktrees.checkpoint("next", 1)).patch == b""
    assert {file.read_text() for file in outside(path).rglob("*.py")} == {OUTSIDE}
    change_in_place(path)
    assert [file.path for file in (await mine.worktrees.checkpoint("next", 1)).files] == [
        b"README.md",
        b"src/deep/er/file",
    ]
    await mine.worktrees.spares.settled()
    assert not list((mine.root / "trash").glob("*"))
