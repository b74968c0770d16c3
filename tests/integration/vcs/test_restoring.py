"""A worktree goes back to exactly base and patch, whatever programs did to it, and keeps what is ignored."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.vcs.errors import LeaseLostError, PatchRefusedError, UnknownWorktreeError
from tests.integration.vcs.conftest import Node, Remote, content, git
from tests.integration.vcs.test_commits import scramble

ODD = "new\nline"
LARGE = bytes(range(256)) * 6_000


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.fixture
async def worktree(node: Node, remote: Remote) -> Path:
    """Attempt 1 of `run`, with work of an agent in it."""
    (remote.work / "script").write_text("#!/bin/sh\n")
    (remote.work / "script").chmod(0o755)
    (remote.work / "link").symlink_to("README.md")
    remote.commit({".gitignore": "cache/\n*.log\n", "gone": "x\n", "moved": "same\n" * 50, "data.bin": LARGE})
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    write(path, {"README.md": b"# Work\n", "new/file": b"work\n", "new.bin": LARGE[::-1], ODD: b"odd\n"})
    (path / "gone").unlink()
    (path / "moved").rename(path / "renamed")
    (path / "src/main.py").chmod(0o755)
    return path


def overwrite(path: Path) -> None:
    for name in ("README.md", "new/file", "data.bin", "new.bin", ODD):
        (path / name).write_bytes(b"tests were here\n")


def delete(path: Path) -> None:
    for name in ("README.md", "new/file", "data.bin", ODD, "link"):
        (path / name).unlink()
    shutil.rmtree(path / "src")


def add(path: Path) -> None:
    write(path, {"left": b"x", "new/left": b"\0binary", "deep/er/left": b"x", "left\nbehind": b"x", "gone": b"x\n"})
    (path / "empty/folder").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(path) + b"/left-\xff")).write_bytes(b"x")


def change_modes(path: Path) -> None:
    for name, mode in (("script", 0o644), ("src/main.py", 0o644), ("renamed", 0o755)):
        (path / name).chmod(mode)


def rename(path: Path) -> None:
    (path / "renamed").rename(path / "moved")
    (path / "new").rename(path / "newer")


def swap_kinds(path: Path) -> None:
    (path / "README.md").unlink()
    write(path, {"README.md/file": b"x"})
    shutil.rmtree(path / "new")
    (path / "new").write_bytes(b"x")


def link_out(path: Path) -> None:
    (path / "to-outside").symlink_to("/etc")
    for name in ("README.md", "link", "new/file"):
        (path / name).unlink()
        (path / name).symlink_to(path.parent / "outside/kept")


def link_folder_out(path: Path) -> None:
    shutil.rmtree(path / "src")
    (path / "src").symlink_to(path.parent / "outside")


def nest_repositories(path: Path) -> None:
    for name in ("nested", "new/nested", "committed"):
        (path / name).mkdir(parents=True)
        git(path / name, "init", "--quiet")
        write(path, {f"{name}/file": b"x"})
    git(path / "committed", "add", "--all")
    git(path / "committed", "commit", "--quiet", "--message", "x")


def change_what_is_ignored(path: Path) -> None:
    write(path, {".gitignore": b"*\n", "hidden": b"x"})


def hide_everything(path: Path) -> None:
    write(path, {"new/.gitignore": b"*\n", "new/hidden": b"x", "src/.gitignore": b"*\n", "src/hidden": b"x"})


def leave_pipes(path: Path) -> None:
    (path / "README.md").unlink()
    os.mkfifo(path / "README.md")


def point_elsewhere(path: Path) -> None:
    (path / ".git").unlink()
    write(path, {".git/config": b"[core]\n\tfsmonitor = touch /tmp/never\n", ".git/HEAD": b"x"})


def remove_all(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


TRACES: list[Callable[[Path], None]] = [
    overwrite,
    delete,
    add,
    change_modes,
    rename,
    swap_kinds,
    link_out,
    link_folder_out,
    nest_repositories,
    change_what_is_ignored,
    hide_everything,
    leave_pipes,
    point_elsewhere,
    remove_all,
]


@pytest.mark.parametrize("leave_traces", TRACES, ids=lambda trace: trace.__name__)
async def test_what_programs_did_is_undone_and_the_work_kept(
    node: Node, worktree: Path, leave_traces: Callable[[Path], None]
) -> None:
    before, saved = content(worktree), await node.worktrees.checkpoint("run", 1)
    pointer = (worktree / ".git").read_bytes()
    outside = worktree.parent / "outside"
    write(outside, {"kept": b"kept\n"})
    leave_traces(worktree)

    for _ in range(2):
        await node.worktrees.restore("run", 1, saved.patch)

        assert content(worktree) == before
        again = await node.worktrees.checkpoint("run", 1)
        assert again.files == saved.files
        assert again.patch == saved.patch, "with the ids of all content: the same tree"
    assert (worktree / ".git").read_bytes() == pointer
    assert content(outside) == {"kept": (0, b"kept\n")}


async def test_what_is_ignored_stays_and_no_empty_folder_does(node: Node, worktree: Path) -> None:
    saved = await node.worktrees.checkpoint("run", 1)
    kept = {"cache/built": b"x", "new/run.log": b"x", "left/run.log": b"x"}
    write(worktree, {**kept, "left/file": b"x"})
    (worktree / "empty").mkdir()
    await node.worktrees.restore("run", 1, saved.patch)
    assert {name: data for name, (_, data) in content(worktree).items() if name in kept} == kept
    assert not (worktree / "left/file").exists()
    assert not (worktree / "empty").exists()


async def test_what_was_left_alone_is_not_written_again(node: Node, worktree: Path) -> None:
    saved = await node.worktrees.checkpoint("run", 1)
    names = ("new/file", "README.md", "data.bin")
    before = [(worktree / name).stat().st_mtime_ns for name in names]
    (worktree / "script").unlink()
    await node.worktrees.restore("run", 1, saved.patch)
    assert [(worktree / name).stat().st_mtime_ns for name in names] == before
    assert (worktree / "script").stat().st_mode & 0o100


async def test_without_a_patch_it_is_the_base(node: Node, worktree: Path) -> None:
    await node.worktrees.restore("run", 1, b"")
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""
    assert (worktree / "gone").read_bytes() == b"x\n"
    assert not (worktree / "new").exists()


async def test_a_change_of_the_same_size_right_after_is_seen(node: Node, worktree: Path) -> None:
    saved = await node.worktrees.checkpoint("run", 1)
    for trace in (overwrite, leave_pipes):
        trace(worktree)
        await node.worktrees.restore("run", 1, saved.patch)
        (worktree / "README.md").write_bytes(b"# W0rk\n")
        assert (await node.worktrees.checkpoint("run", 1)).patch != saved.patch


async def test_what_git_cannot_work_on_is_made_anew_and_left_nowhere(node: Node, worktree: Path) -> None:
    saved = await node.worktrees.checkpoint("run", 1)
    leave_pipes(worktree)
    write(worktree, {"cache/built": b"x"})
    await node.worktrees.restore("run", 1, saved.patch)
    assert not (worktree / "cache").exists(), "made anew: not even what is ignored was kept"
    assert list((node.root / "trash").iterdir()) == []
    assert not (node.root / "state/run/1/git/index.new").exists()


async def test_a_newer_attempt_and_what_is_not_there_are_refused(node: Node, remote: Remote, worktree: Path) -> None:
    with pytest.raises(UnknownWorktreeError, match="prepare it first"):
        await node.worktrees.restore("other", 1, b"")
    with pytest.raises(PatchRefusedError, match="cut short"):
        await node.worktrees.restore("run", 1, b"no patch")
    assert (worktree / "new/file").exists()
    await node.worktrees.prepare("run", 2, remote.repository)
    with pytest.raises(LeaseLostError):
        await node.worktrees.restore("run", 1, b"")


# Examples share one remote and node: each has a run of its own.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), attributes=st.sampled_from((b"", b"* text=auto\n", b"* text eol=crlf\n")))
async def test_any_tree_comes_back_from_any_other(node: Node, remote: Remote, seed: int, attributes: bytes) -> None:
    chooser = random.Random(seed)
    scramble(remote.work, chooser, b"")
    base = remote.commit({".gitattributes": attributes})
    run = f"run-{seed}-{len(node.git.commands)}"
    path = (await node.worktrees.prepare(run, 1, remote.repository, base_sha=base)).path
    scramble(path, chooser, attributes)
    saved = await node.worktrees.checkpoint(run, 1)
    scramble(path, chooser, b"* text\n")
    await node.worktrees.restore(run, 1, saved.patch)
    again = await node.worktrees.checkpoint(run, 1)
    assert again.patch == saved.patch, "with the ids of all content: the same tree"
