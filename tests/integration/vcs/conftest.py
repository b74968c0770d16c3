"""Real bare repositories as remotes, and a vcs node over them whose Git commands are recorded."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.vcs.git.repositories import Repository, parse_repository
from services.vcs.git.runner import Git
from services.vcs.git.trees import CommitMetadata
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.worktrees.commits import Commits
from services.vcs.worktrees.worktrees import Worktrees

METADATA = CommitMetadata("Ada", "ada@example.org", 1_700_000_000, "Change it\n\nBecause.\n")


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """Plain Git, as a user has it, with none of the service's defences."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_NAME": "Test" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "test@example.org" for who in ("AUTHOR", "COMMITTER")},
    }
    ended = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, input=stdin, capture_output=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode("utf-8", "surrogateescape").strip()


@dataclass(frozen=True)
class Remote:
    """A bare repository and a clone to commit in."""

    bare: Path
    work: Path

    @property
    def repository(self) -> Repository:
        return parse_repository(str(self.bare), allow_local=True)

    def commit(self, files: dict[str, str | bytes | None], *, branch: str = "main") -> str:
        """Write (None: delete) files, commit, push; the SHA."""
        for name, content in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--allow-empty", "--message", "Change")
        return self.push(branch)

    def push(self, branch: str = "main") -> str:
        git(self.work, "push", "--quiet", str(self.bare), f"HEAD:refs/heads/{branch}")
        return git(self.work, "rev-parse", "HEAD")

    def at(self, branch: str) -> str:
        return git(self.bare, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")


class RecordingGit(Git):
    """Git that remembers the commands it was given."""

    commands: list[tuple[str, ...]]

    async def run(self, *arguments: str, **options: Any) -> bytes:
        self.commands.append(arguments)
        return await super().run(*arguments, **options)

    def count(self, name: str) -> int:
        return sum(command[0] == name for command in self.commands)


@dataclass(frozen=True)
class Node:
    root: Path
    git: RecordingGit
    mirrors: Mirrors
    worktrees: Worktrees
    commits: Commits

    def leftovers(self) -> list[str]:
        """Whatever lies around besides mirrors and their locks."""
        folders = (self.root / name for name in ("worktrees", "state", "trash", "mirrors"))
        names = (entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir())
        return [name for name in names if not name.endswith((".git", ".lock")) or name.startswith(".")]


def remote_in(folder: Path, name: str) -> Remote:
    """Where they are to be; nothing is there yet."""
    return Remote(folder / f"{name}.git", folder / f"{name}-work")


@pytest.fixture
def make_remote(tmp_path: Path) -> Callable[[str], Remote]:
    return lambda name: _empty_remote(tmp_path, name)


def _empty_remote(folder: Path, name: str) -> Remote:
    remote = remote_in(folder, name)
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(remote.bare))
    git(folder, "init", "--quiet", "--initial-branch=main", str(remote.work))
    return remote


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Remote:
    """Made once, to be copied: it takes Git a dozen processes."""
    remote = _empty_remote(tmp_path_factory.mktemp("original"), "remote")
    remote.commit({"README.md": "# Demo\n", "src/main.py": "print('hello')\n"})
    return remote


@pytest.fixture
def remote(original: Remote, tmp_path: Path) -> Remote:
    """One commit: README.md and src/main.py."""
    remote = remote_in(tmp_path, "remote")
    shutil.copytree(original.bare, remote.bare)
    shutil.copytree(original.work, remote.work)
    return remote


@pytest.fixture
def make_node(tmp_path: Path) -> Callable[[str], Node]:
    def make(name: str) -> Node:
        root = tmp_path / name
        git = RecordingGit(root / "home", allow_local=True)
        git.commands = []
        mirrors = Mirrors(root, git)
        worktrees = Worktrees(root, mirrors, git)
        return Node(root, git, mirrors, worktrees, Commits(git, mirrors, worktrees))

    return make


@pytest.fixture
def node(make_node: Callable[[str], Node]) -> Node:
    return make_node("node")


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything beneath a worktree but `.git`: permission bits of the owner, and bytes or target."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name == ".git" or (path.is_dir() and not path.is_symlink()):
            continue
        data = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        found[name] = (path.lstat().st_mode & 0o100, data)
    return found
