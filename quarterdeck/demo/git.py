"""Git as the demo needs it: run without the user's configuration, and trees read whole. It writes only where told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120
_WHO = "Quarterdeck demo"
_WHEN = "2026-01-01T00:00:00Z"
_IDENTITY = {
    "GIT_AUTHOR_NAME": _WHO,
    "GIT_AUTHOR_EMAIL": "demo@quarterdeck.invalid",
    "GIT_AUTHOR_DATE": _WHEN,
    "GIT_COMMITTER_NAME": _WHO,
    "GIT_COMMITTER_EMAIL": "demo@quarterdeck.invalid",
    "GIT_COMMITTER_DATE": _WHEN,
}


class GitError(Exception):
    """Git is missing or refused; the message holds its own words."""


@dataclass(frozen=True)
class Entry:
    """A file of a tree. ``mode``: six octal digits."""

    mode: str
    blob: str

    @property
    def is_regular(self) -> bool:
        return self.mode.startswith("100")


def git(*words: str | Path, folder: Path, given: bytes = b"") -> bytes:
    """Run Git in ``folder`` and return its output. Raises GitError."""
    # What the caller's shell says of Git (GIT_DIR in a hook, say) is about another repository.
    outer = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = outer | _IDENTITY | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command = ["git", "-c", "commit.gpgSign=false", "-c", "core.autocrlf=false", "-c", "core.hooksPath=/dev/null"]
    what = next(str(word) for word in words if not str(word).startswith("-"))
    try:
        done = subprocess.run(  # noqa: S603 (no shell; the words are ours)
            [*command, *map(str, words)],
            cwd=folder,
            env=environment,
            input=given,
            capture_output=True,
            check=True,
            timeout=SECONDS,
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed, or the folder is gone: the demo needs Git 2.30 or newer") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git {what} took longer than {SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        raise GitError(f"git {what}: {error.stderr.decode(errors='replace').strip()}") from error
    return done.stdout


def line(*words: str | Path, folder: Path) -> str:
    """The one line that Git prints."""
    return git(*words, folder=folder).decode(errors="surrogateescape").strip()


def tree(repository: Path, revision: str) -> dict[str, Entry]:
    """The files of a revision by path."""
    listed = git("ls-tree", "-r", "-z", "--full-tree", revision, folder=repository)
    found: dict[str, Entry] = {}
    for record in listed.decode(errors="surrogateescape").split("\0"):
        if record:
            about, _, path = record.partition("\t")
            mode, _, blob = about.split(" ")
            found[path] = Entry(mode, blob)
    return found


def blobs(repository: Path, names: Iterable[str]) -> Mapping[str, bytes]:
    """The contents of blobs by name, read in one go."""
    wanted = sorted(set(names))
    output = git("cat-file", "--batch", folder=repository, given="".join(f"{name}\n" for name in wanted).encode())
    found: dict[str, bytes] = {}
    position = 0
    for name in wanted:
        header_end = output.index(b"\n", position)
        size = int(output[position:header_end].split(b" ")[2])
        found[name] = output[header_end + 1 : header_end + 1 + size]
        position = header_end + size + 2
    return found


def commit_all(files: Path, repository: Path, message: str, *, only: Iterable[str] = (".",)) -> None:
    """Make a bare repository of one commit from the files of a folder that is no repository; nothing is put there."""
    repository.mkdir(parents=True)
    git("init", "--quiet", "--bare", "--initial-branch=main", ".", folder=repository)
    (repository / "info" / "exclude").write_text(".git/\n.venv/\n.quarterdeck/\nbuild/\n__pycache__/\n*.egg-info/\n")
    inside = (f"--git-dir={repository}", f"--work-tree={files}")
    git(*inside, "add", "--all", "--", *only, folder=files)
    git(*inside, "commit", "--quiet", f"--message={message}", folder=files)
    (repository / "index").unlink()
