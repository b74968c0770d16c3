"""Commits as plain Git makes them, so that every SHA in these tests is known before anything of ours has run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from services.jobs.models import Commit
from tests.integration.vcs.conftest import git

AUTHOR: Final = "Quarterdeck"
EMAIL: Final = "quarterdeck@forge.example"
TIME: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
README: Final = "# Demo\n"
CHANGED: Final = "change.txt"


@dataclass(frozen=True, eq=False)
class Made:
    """A commit: its files as path to content. ``patch``: against its parent."""

    sha: str
    parent: str
    files: dict[str, str]
    message: str
    patch: bytes = b""

    @property
    def commit(self) -> Commit:
        """As an agent hands it over."""
        listed = [{"path": CHANGED, "change": "added", "insertions": 1, "deletions": 0, "binary": False}]
        return Commit(self.sha, AUTHOR, EMAIL, TIME, self.message, self.patch, listed)


class Workshop:
    """``bare``: a scratch repository, that of nobody else."""

    def __init__(self, bare: Path) -> None:
        self.bare = bare
        git(bare.parent, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        self.made: dict[str, Made] = {}
        self.base = self._commit({"README.md": README}, "Begin\n", "")

    def change(self, text: str, message: str = "Change one thing\n", *, on: Made | None = None) -> Made:
        """``on``, or the base, with one file of one line."""
        under = on or self.base
        return self._commit({**under.files, CHANGED: f"{text}\n"}, message, under.sha)

    def _commit(self, files: dict[str, str], message: str, parent: str) -> Made:
        blobs = {path: self._git("hash-object", "-w", "--stdin", stdin=content) for path, content in files.items()}
        listing = "".join(f"100644 blob {sha}\t{path}\n" for path, sha in blobs.items())
        lines = [f"tree {self._git('mktree', stdin=listing)}", *([f"parent {parent}"] if parent else [])]
        lines += [f"{role} {AUTHOR} <{EMAIL}> {int(TIME.timestamp())} +0000" for role in ("author", "committer")]
        text = "\n".join([*lines, "", message])
        sha = self._git("hash-object", "-w", "-t", "commit", "--stdin", stdin=text)
        patch = f"{self._git('diff', '--binary', parent, sha)}\n".encode() if parent else b""
        self.made[sha] = Made(sha, parent, files, message, patch)
        return self.made[sha]

    def _git(self, *arguments: str, stdin: str = "") -> str:
        return git(self.bare, *arguments, stdin=stdin.encode())
