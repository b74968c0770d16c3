"""A repository of more than 10,000 files with a history that people made: releases of source packages, one a commit.

It is made once and kept below the user's cache folder. Without a network it is a made-up one of the same size, which
its title says.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.demo.git import git, line
from quarterdeck.demo.packages import FetchError, SourcePackage, packaged_repository

_RELEASES = (
    SourcePackage("django", "2.2", "7c3543e4fb070d14e10926189a7fcf42ba919263b7473dceaefce34d54e8a119"),
    SourcePackage("ansible-core", "2.12.0", "0e9049a1ab8b8c54ddc80738dc0ab2b57870be6fe4cd4e5585d471547ab74b13"),
    SourcePackage("django", "3.0", "d98c9b6e5eed147bc51f47c014ff6826bd1ab50b166956776ee13db5a58804ae"),
    SourcePackage("django", "3.1", "2d390268a13c655c97e0e2ede9d117007996db692c1bb93eabebd4fb7ea7012b"),
    SourcePackage("ansible-core", "2.13.0", "08e0fb4a718d967a654e70cda57cf93201869329dd1cf5b8a4267c57c5c4c8d3"),
    SourcePackage("django", "3.2", "21f0f9643722675976004eb683c55d33c05486f94506672df3d6a141546f389d"),
    SourcePackage("django", "4.0", "d5a8a14da819a8b9237ee4d8c78dfe056ff6e8a7511987be627192225113ee75"),
    SourcePackage("ansible-core", "2.14.0", "fa48b481cb623bf79bb903f223097681a0c13e1b4ec7e78e7dd7d858d36a34b2"),
    SourcePackage("django", "4.1", "032f8a6fc7cf05ccd1214e4a2e21dfcd6a23b9d575c6573cacc8c67828dbe642"),
    SourcePackage("django", "4.2", "c36e2ab12824e2ac36afa8b2515a70c53c7742f0d6eaefa7311ec379558db997"),
    SourcePackage("ansible-core", "2.15.0", "cf690fd4ebb40590e00c5acdc0624758ca4c58d1e4b2b02ec026a034070ebf4d"),
    SourcePackage("django", "5.0", "7d29e14dfbc19cb6a95a4bd669edbde11f5d4c6a71fdaa42c2d40b6846e807f7"),
    SourcePackage("ansible-core", "2.16.0", "b4a6c60fbc2f51e3ae68ec733c931ef957a04d7c8c92aa39242990b0f8adf149"),
    SourcePackage("django", "5.1", "848a5980e8efb76eea70872fb0e4bc5e371619c70fffbe48e3e1b50b2c09455d"),
    SourcePackage("ansible-core", "2.17.0", "bd16e30ecac405dac594de3e1b1b4d9cc6fa1a9f7a01a6a8d4c471b20660716d"),
    SourcePackage("django", "5.2", "1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89"),
    SourcePackage("ansible-core", "2.18.0", "87fbebbfe8d961e9b153e84b4438ba3a327dbfdcd4ad05a6065d9ff5d9d02e7b"),
    SourcePackage("django", "5.2.1", "57fe1f1b59462caed092c80b3dd324fd92161b620d59a9ba9181c34746c97284"),
)
_MADE_UP_FILES, _A_FOLDER = 12_000, 50
_MADE_UP_COMMITS = 18
_BRANCH = "refs/heads/main"
# Whoever changes what is made changes the name, so that no older one is taken for it.
_RELEASED, _MADE_UP = "releases-2.git", "made-up-2.git"


@dataclass(frozen=True)
class History:
    """``path``: a bare repository on whose `main` the last commit is still missing; ``newest`` is that commit."""

    path: Path
    title: str
    files: int
    newest: str

    def advance(self) -> None:
        """Let `main` be at the newest commit, as after a push."""
        git("update-ref", _BRANCH, self.newest, folder=self.path)


def copied_history(path: Path, say: Callable[[str], None]) -> History:
    """A copy of the measure's own at ``path``, to be changed at will. Raises GitError, OSError."""
    cached = _cached(say)
    git("clone", "--quiet", "--bare", "--no-hardlinks", cached, path, folder=cached.parent)
    newest = line("rev-parse", _BRANCH, folder=path)
    files = len(git("ls-tree", "-r", "--name-only", "-z", newest, folder=path).split(b"\0")) - 1
    git("update-ref", _BRANCH, f"{newest}^", folder=path)
    return History(path, _title(cached), files, newest)


def _title(cached: Path) -> str:
    if cached.name == _MADE_UP:
        return f"made up (no network), {_MADE_UP_COMMITS} commits"
    names = " and ".join(dict.fromkeys(package.name for package in _RELEASES))
    return f"{len(_RELEASES)} releases of {names}"


def _cached(say: Callable[[str], None]) -> Path:
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path there is to be ignored.
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache"
    cache = base / "quarterdeck-bench"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        return _kept(cache / _RELEASED, lambda made: _commit_releases(made, cache / "packages", say))
    except FetchError as error:
        say(f"the releases cannot be fetched, a made-up history stands in: {error}")
        return _kept(cache / _MADE_UP, _commit_made_up)


def _kept(path: Path, make: Callable[[Path], None]) -> Path:
    """``path``, made the first time; in one step, so that one who is killed leaves no half of it."""
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "made.git"
        made.mkdir()
        git("init", "--quiet", "--bare", "--initial-branch=main", ".", folder=made)
        make(made)
        # As a forge keeps it: a clone is then no slower than it has to be.
        git("repack", "-a", "-d", "-f", "-q", "--write-bitmap-index", folder=made)
        made.rename(path)
    return path


def _commit_releases(made: Path, packages: Path, say: Callable[[str], None]) -> None:
    """Each release in the folder of its package's name, beside the newest of the others until then."""
    say(f"fetching {len(_RELEASES)} releases, this once")
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        repositories = list(pool.map(lambda package: packaged_repository(package, packages), _RELEASES))
    present: dict[str, str] = {}
    for package, repository in zip(_RELEASES, repositories, strict=True):
        git("fetch", "--quiet", repository, "HEAD", folder=made)
        present[package.name] = line("rev-parse", "FETCH_HEAD^{tree}", folder=made)
        _commit(made, _tree(made, present), package.title)


def _commit_made_up(made: Path) -> None:
    """Every 10th file is changed by each commit after the first."""
    blobs = {number: _text(number, 0) for number in range(_MADE_UP_FILES)}
    for commit in range(_MADE_UP_COMMITS):
        blobs |= {number: _text(number, commit) for number in range(commit, _MADE_UP_FILES, 10)}
        _import(made, blobs, commit)


def _text(number: int, commit: int) -> bytes:
    return f"value_{number} = {number * (commit + 1)}  # as of {commit}\n".encode() * 80


def _import(made: Path, blobs: Mapping[int, bytes], commit: int) -> None:
    who = "Quarterdeck bench <bench@quarterdeck.invalid> 1767225600 +0000"
    words = f"commit {_BRANCH}\ncommitter {who}\ndata 4\nmade\n".encode()
    parent = f"from {_BRANCH}^0\n".encode() if commit else b""
    files = (
        b"M 100644 inline part_%d/file_%d.py\ndata %d\n%s\n" % (number // _A_FOLDER, number, len(text), text)
        for number, text in blobs.items()
    )
    git("fast-import", "--quiet", folder=made, given=words + parent + b"".join(files))


def _tree(made: Path, folders: Mapping[str, str]) -> str:
    entries: Sequence[str] = [f"040000 tree {tree}\t{name}\n" for name, tree in sorted(folders.items())]
    return git("mktree", folder=made, given="".join(entries).encode()).decode().strip()


def _commit(made: Path, tree: str, message: str) -> None:
    parents = ("-p", _BRANCH) if git("for-each-ref", _BRANCH, folder=made) else ()
    sha = line("commit-tree", tree, *parents, "-m", message, folder=made)
    git("update-ref", _BRANCH, sha, folder=made)
