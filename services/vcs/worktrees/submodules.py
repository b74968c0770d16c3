"""Submodules of a worktree: their files put there for reading, never part of a patch. Never runs `git submodule`."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import CloneFailedError, GitError, RepositoryRefusedError, VcsError
from services.vcs.git.repositories import Repository, parse_repository
from services.vcs.git.runner import Git, Place, Progress
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.worktrees.checkouts import write_repository

MAX_SUBMODULES: Final = 50
MAX_LEVELS: Final = 5
_TIMEOUT: Final = timedelta(minutes=10)
_RECORD: Final = "submodules.json"


@dataclass(frozen=True, slots=True)
class Submodule:
    """``path``: in the worktree. ``git_dir``: of the repository it was checked out by; empty where it was not."""

    path: str
    sha: str
    git_dir: str = ""


@dataclass(frozen=True, slots=True)
class _Parent:
    """A repository whose submodules are looked for. ``path``: of its worktree, empty for the attempt's own."""

    repository: Repository
    place: Place
    sha: str
    path: str = ""
    level: int = 0


async def note_folders(git: Git, place: Place) -> None:
    """Remember which folders are submodules that are not checked out, so that files written there can be told of."""
    assert place.work_tree is not None
    if (place.work_tree / ".gitmodules").is_file():
        _write(place, [Submodule(path, sha) for path, sha in await _recorded(git, place)])


def are_in(place: Place) -> bool:
    """Whether the worktree has folders of submodules, checked out or not."""
    return bool(_read(place))


async def check_out(
    git: Git, mirrors: Mirrors, repository: Repository, place: Place, base_sha: str, progress: Progress | None
) -> None:
    """Put the files of every submodule, and of theirs, where ``base_sha`` has them, at exactly the recorded commits.

    Raises ``CloneFailedError``, ``RepositoryRefusedError``, ``BusyError``, ``GitError``.
    """
    found: list[Submodule] = []
    parents = [_Parent(repository, place, base_sha)]
    while parents:
        parent = parents.pop()
        for path, sha, child in await _children(git, parent):
            whole = f"{parent.path}{path}"
            if len(found) == MAX_SUBMODULES or parent.level == MAX_LEVELS:
                words = f"{repository.url} has more than {MAX_SUBMODULES} submodules, or more than {MAX_LEVELS} levels"
                raise CloneFailedError(f"{words} of them, at {whole!a}; leave submodules off")
            inner = await _put(git, mirrors, place, child, Submodule(whole, sha, _git_dir(place, len(found))), progress)
            found.append(Submodule(whole, sha, str(inner.git_dir)))
            parents.append(_Parent(child, inner, sha, f"{whole}/", parent.level + 1))
    _write(place, found)


async def put_back(git: Git, place: Place, index: Place) -> None:
    """Undo what was changed in submodules that were checked out and that ``index`` still has.

    Raises ``GitError``, ``OSError``.
    """
    submodules = [submodule for submodule in _read(place) if submodule.git_dir]
    kept = tuple(f"{path}/" for path, _ in await _recorded(git, index)) if submodules else ()
    for submodule in submodules:
        if f"{submodule.path}/".startswith(kept):
            _make_folder(place, submodule.path)
            await _reset(git, _place(place, submodule), submodule.sha)


async def notes(git: Git, place: Place) -> tuple[str, ...]:
    """A sentence for each submodule in whose folder something was changed or written: no patch holds it."""
    changed = [submodule.path for submodule in _read(place) if await _is_changed(git, place, submodule)]
    words = "is a submodule: what was changed inside of it is no part of this change, and belongs in its own repository"
    return tuple(f"{path} {words}" for path in changed)


async def _children(git: Git, parent: _Parent) -> list[tuple[str, str, Repository]]:
    """Path, commit and repository of each submodule that `.gitmodules` says an address of."""
    recorded = await _recorded(git, parent.place)
    addresses = await _addresses(git, parent) if recorded else {}
    children = []
    for path, sha in recorded:
        if path in addresses:
            children.append((path, sha, _parsed(git, parent, path, addresses[path])))
    return children


def _parsed(git: Git, parent: _Parent, path: str, address: str) -> Repository:
    # A repository from elsewhere must not name folders of this machine.
    allow_local = git.allow_local and parent.repository.url.startswith("/")
    try:
        return parse_repository(resolved(parent.repository.url, address), allow_local=allow_local)
    except RepositoryRefusedError as error:
        words = f"the submodule {parent.path}{path} cannot be fetched: {error.message}"
        raise RepositoryRefusedError(f"{words}; leave submodules off or correct .gitmodules") from None


def resolved(parent: str, address: str) -> str:
    """A submodule's address, taken from its parent's where it begins with `./` or `../`, as Git does."""
    if not address.startswith(("./", "../")):
        return address
    base, rest = parent.rstrip("/"), address
    while rest.startswith(("./", "../")):
        if rest.startswith("../"):
            base = _without_last_part(base)
        rest = rest.partition("/")[2]
    return f"{base}{rest}" if base.endswith(":") else f"{base}/{rest}"


def _without_last_part(address: str) -> str:
    """Up to the last slash, or to the colon of `host:path`, which stays."""
    cut = address.rfind("/")
    return address[:cut] if cut >= 0 else address[: address.rfind(":") + 1]


async def _recorded(git: Git, place: Place) -> list[tuple[str, str]]:
    """Path and commit of each submodule whose folder is part of the checkout."""
    listed = await git.run("ls-files", "-z", "-t", "--stage", place=place, timeout=_TIMEOUT)
    found = []
    for line in listed.split(b"\0")[:-1]:
        if line.startswith(b"H 160000 "):
            head, _, path = line.partition(b"\t")
            found.append((os.fsdecode(path), head.split(b" ")[2].decode("ascii")))
    return found


async def _addresses(git: Git, parent: _Parent) -> dict[str, str]:
    """Addresses by path. Read as configuration, of which nothing takes effect."""
    arguments = ("config", "-z", f"--blob={parent.sha}:.gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$")
    output = await git.run(*arguments, place=parent.place, timeout=_TIMEOUT, accept=(0, 1, 128))
    fields: dict[str, dict[str, str]] = {}
    for entry in output.split(b"\0")[:-1]:
        key, _, value = os.fsdecode(entry).partition("\n")
        name, _, field = key.removeprefix("submodule.").rpartition(".")
        fields.setdefault(name, {})[field] = value
    return {found["path"].rstrip("/"): found["url"] for found in fields.values() if {"path", "url"} <= found.keys()}


async def _put(
    git: Git, mirrors: Mirrors, place: Place, repository: Repository, submodule: Submodule, progress: Progress | None
) -> Place:
    try:
        # Whoever wrote .gitmodules may name a repository that only others may read, and that is mirrored here for them.
        await mirrors.fetch(repository, sha=submodule.sha, asks=True, progress=progress)
        await mirrors.complete(repository, submodule.sha, progress=progress)
    except VcsError as error:
        words = f"the submodule {submodule.path}: {error.message}"
        raise CloneFailedError(words, git_message=error.git_message, retryable=error.retryable) from error
    inner = _place(place, submodule)
    write_repository(inner.git_dir, mirrors.place(repository).git_dir, submodule.sha)
    _make_folder(place, submodule.path)
    await _reset(git, inner, submodule.sha)
    return inner


async def _reset(git: Git, inner: Place, sha: str) -> None:
    await git.run("read-tree", "--reset", "-u", sha, place=inner, timeout=_TIMEOUT)
    await git.run("clean", "-ffdq", place=inner, timeout=_TIMEOUT)


async def _is_changed(git: Git, place: Place, submodule: Submodule) -> bool:
    """A folder that is gone, or something else now, is a change of the repository around it, and in its patch."""
    folder = _folder(place, submodule.path)
    if not _is_plain_folder(place, submodule.path):
        return False
    if not submodule.git_dir:
        return any(True for _ in folder.iterdir())
    arguments = ("status", "--porcelain", "-z", "--untracked-files=normal", "--ignore-submodules=all")
    try:
        return bool(await git.run(*arguments, place=_place(place, submodule), timeout=_TIMEOUT))
    except GitError:
        return True


def _make_folder(place: Place, path: str) -> None:
    """The submodule's folder, through no link; what else is at its name goes. Raises ``OSError``."""
    for part in _parts(place, path):
        status = _lstat(part)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            part.unlink()
            status = None
        if status is None:
            part.mkdir()


def _is_plain_folder(place: Place, path: str) -> bool:
    statuses = [_lstat(part) for part in _parts(place, path)]
    return all(status is not None and stat.S_ISDIR(status.st_mode) for status in statuses)


def _parts(place: Place, path: str) -> Iterator[Path]:
    """Of ``a/b/c``: a, a/b and a/b/c, from the top."""
    assert place.work_tree is not None
    part = place.work_tree
    for name in path.split("/"):
        part /= name
        yield part


def _folder(place: Place, path: str) -> Path:
    assert place.work_tree is not None
    return place.work_tree / path


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _git_dir(place: Place, number: int) -> str:
    return str(place.git_dir / "submodules" / str(number))


def _place(place: Place, submodule: Submodule) -> Place:
    return Place(Path(submodule.git_dir), work_tree=_folder(place, submodule.path))


def _read(place: Place) -> list[Submodule]:
    try:
        return [Submodule(**entry) for entry in json.loads((place.git_dir / _RECORD).read_bytes())]
    except FileNotFoundError:
        return []


def _write(place: Place, found: list[Submodule]) -> None:
    # The standard library's: names that are not UTF-8 pass through it unchanged.
    (place.git_dir / _RECORD).write_text(json.dumps([asdict(submodule) for submodule in found]))
