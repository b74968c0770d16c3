"""Contents of Git LFS in a worktree, for reading: put in place of their pointers, and kept from counting as changes.

Git never runs a filter of Git LFS: what a worktree holds is compared with its pointers here.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError, VcsError
from services.vcs.git.diffstat import FileChange
from services.vcs.git.remotes import clone_failed
from services.vcs.git.repositories import Repository
from services.vcs.git.runner import Git, Place, Progress
from services.vcs.git.trees import read_tree, scratch_index

FETCH_TIMEOUT: Final = timedelta(minutes=30)
_TIMEOUT: Final = timedelta(minutes=5)
_RECORD: Final = "lfs.json"
# Git LFS itself takes nothing longer for a pointer.
_MAX_POINTER_BYTES: Final = 1_023
_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize \d+\n"
)
_PLAIN_PATH: Final = re.compile(r"[\w./ -]+")
_MOST_LISTED: Final = 200
_FILE_MODES: Final = ("100644", "100755")
_EXECUTABLE: Final = 0o755
_PLAIN: Final = 0o644


class LfsUnavailableError(VcsError):
    """Git LFS is not installed on this vcs."""

    exit_reason = "clone_failed"


class LfsRefusedError(VcsError):
    """Files that are kept in Git LFS were changed, and cannot be delivered."""


@dataclass(frozen=True, slots=True)
class LfsFile:
    """``path``: as the file system decodes it. ``oid``: the content's SHA-256. ``signature``: of the file put there."""

    path: str
    mode: str
    oid: str
    signature: tuple[int, ...] = ()


def require_allowed(*, allowed: bool) -> None:
    """Raises ``LfsUnavailableError`` where whoever runs this service has not said that it may be asked for."""
    if not allowed:
        words = "Git LFS was asked for, and this vcs is not allowed to use it"
        raise LfsUnavailableError(f"{words}; set QUARTERDECK_GIT_LFS=true there, or leave the files as pointers")


def require_program() -> None:
    """Raises ``LfsUnavailableError`` where `git lfs` cannot be run."""
    if shutil.which("git-lfs") is None:
        words = "Git LFS was asked for, and this vcs has no git-lfs program"
        raise LfsUnavailableError(f"{words}; install the package git-lfs there, or leave the files as pointers")


async def put_contents(
    git: Git, repository: Repository, mirror: Place, place: Place, base_sha: str, progress: Progress | None
) -> None:
    """Replace the pointers in a worktree that was just checked out, whatever of them is not here yet being fetched.

    ``mirror``: the repository's; it keeps the contents for later ones. Raises ``CloneFailedError``.
    """
    objects = mirror.git_dir / "lfs" / "objects"
    files = await _pointers(git, mirror, place)
    if absent := _absent(objects, files):
        await _fetch(git, repository, mirror, base_sha, absent, progress)
    if missing := _absent(objects, files):
        words = f"{repository.url} has no content in Git LFS for {_shown(missing)}"
        raise CloneFailedError(f"{words}; push it there with `git lfs push --all`, or leave the files as pointers")
    await _put(git, place, place, objects, files)


async def put_again(git: Git, place: Place, index: Place) -> None:
    """After a checkout over contents that were put before: replace what are pointers again.

    ``index``: the one that the checkout wrote. Raises ``OSError`` where contents are gone.
    """
    record = _read(place)
    if record is not None:
        await _put(git, place, index, *record)


async def reveal_changed(git: Git, place: Place, scratch: Place) -> None:
    """Let Git see those of the contents that are no longer what was put there. ``scratch``: a copy of the index."""
    record = _read(place)
    changed = await asyncio.to_thread(_changed, place, record[1]) if record else []
    if changed:
        listed = await git.run("ls-files", "-z", "-v", place=scratch, timeout=_TIMEOUT)
        hidden = {os.fsdecode(line[2:]) for line in listed.split(b"\0") if line.startswith(b"h ")}
        await _mark(git, scratch, "--no-assume-unchanged", hidden.intersection(changed))


async def refuse_changed(git: Git, place: Place, tree: str, files: Sequence[FileChange]) -> None:
    """Raises ``LfsRefusedError`` where ``files`` of ``tree`` would be stored as plain content that belongs in Git LFS.

    Deleting one is fine.
    """
    record = _read(place)
    if record is None:
        return
    objects, known = record[0], {file.path for file in record[1]}
    mirror = Place(objects.parent.parent)
    written = [os.fsdecode(file.path) for file in files if file.new_mode in _FILE_MODES]
    with scratch_index(replace(place, work_tree=None)) as scratch:
        await read_tree(git, scratch, tree)
        refused = known.intersection(written) | await _tracked(git, mirror, scratch, written)
    if refused:
        words = "is kept in Git LFS, and a new content for it" if len(refused) == 1 else "are kept in Git LFS: these"
        raise LfsRefusedError(f"{_shown(sorted(refused))} {words} cannot be delivered; leave such files as they were")


async def _pointers(git: Git, mirror: Place, place: Place) -> list[LfsFile]:
    listed = await git.run("ls-files", "-z", "-t", "--stage", place=place, timeout=_TIMEOUT)
    found = await asyncio.to_thread(_read_pointers, place, listed)
    tracked = await _tracked(git, mirror, place, [file.path for file in found])
    return [file for file in found if file.path in tracked]


def _read_pointers(place: Place, listed: bytes) -> list[LfsFile]:
    """Of ``listed``, those that lie in the worktree as a pointer."""
    found = []
    for line in listed.split(b"\0")[:-1]:
        head, _, path = line.partition(b"\t")
        tag, mode, *_ = head.decode("ascii").split(" ")
        if tag == "H" and mode in _FILE_MODES:
            oid = _oid_of_pointer(_path(place, os.fsdecode(path)))
            if oid:
                found.append(LfsFile(os.fsdecode(path), mode, oid))
    return found


async def _tracked(git: Git, mirror: Place, index: Place, paths: Collection[str]) -> set[str]:
    """Those that the attributes stored in ``index`` put in Git LFS, asked past the attempt's own attributes."""
    place = Place(mirror.git_dir, index=index.index or index.git_dir / "index")
    variables = {"GIT_OBJECT_DIRECTORY": str(index.git_dir / "objects")}
    arguments = ("check-attr", "-z", "--cached", "--stdin", "filter")
    stdin = _lines(paths)
    if not stdin:
        return set()
    output = await git.run(*arguments, place=place, stdin=stdin, variables=variables, timeout=_TIMEOUT)
    fields = output.split(b"\0")[:-1]
    answers = zip(fields[::3], fields[2::3], strict=True)
    return {os.fsdecode(path) for path, value in answers if value == b"lfs"}


async def _fetch(
    git: Git, repository: Repository, mirror: Place, sha: str, paths: Sequence[str], progress: Progress | None
) -> None:
    """By the mirror, whose HEAD has no commit: no configuration stored in the repository names another server."""
    require_program()
    # The list is one of patterns; what could be read as more than a name is fetched with all the rest.
    is_list = len(paths) <= _MOST_LISTED and all(_PLAIN_PATH.fullmatch(path) for path in paths)
    include = (f"--include={','.join(paths)}",) if is_list else ()
    url = f"file://{repository.url}" if repository.url.startswith("/") else repository.url
    options = {"place": mirror, "timeout": FETCH_TIMEOUT, "progress": progress}
    try:
        await git.run_against(repository, "lfs", "fetch", *include, url, sha, **options)
    except (GitError, GitTimeoutError) as error:
        raise clone_failed(repository, error) from error


async def _put(git: Git, place: Place, index: Place, objects: Path, files: Sequence[LfsFile]) -> None:
    """Those that are not pointers now are left as they are: the patch that was restored changes or deletes them."""
    put = await asyncio.to_thread(_copy, place, objects, files)
    _write(place, objects, [put.get(file.path, file) for file in files])
    await _mark(git, index, "--assume-unchanged", put)


def _copy(place: Place, objects: Path, files: Iterable[LfsFile]) -> dict[str, LfsFile]:
    return {file.path: _copied(place, objects, file) for file in files if _is_pointer(place, file)}


def _copied(place: Place, objects: Path, file: LfsFile) -> LfsFile:
    """Written beside the pointer and moved there: nothing that lies there is followed or written through."""
    path = _path(place, file.path)
    fresh = path.with_name(f".{uuid.uuid4().hex}")
    with _object(objects, file.oid).open("rb") as content, fresh.open("xb") as target:
        shutil.copyfileobj(content, target)
    fresh.chmod(_EXECUTABLE if file.mode == _FILE_MODES[1] else _PLAIN)
    fresh.rename(path)
    return replace(file, signature=_signature(path))


def _is_pointer(place: Place, file: LfsFile) -> bool:
    return _oid_of_pointer(_path(place, file.path)) == file.oid


def _changed(place: Place, files: Iterable[LfsFile]) -> list[str]:
    return [file.path for file in files if not _is_as_put(_path(place, file.path), file)]


def _is_as_put(path: Path, file: LfsFile) -> bool:
    """By what the file system says or, where that differs, by the content: builds touch files."""
    signature = _signature(path)
    if signature == file.signature:
        return True
    if signature[:2] != file.signature[:2]:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.oid


def _signature(path: Path) -> tuple[int, ...]:
    """Mode and size, which count, then what tells of a write. Empty where no plain file is there."""
    try:
        status = path.lstat()
    except OSError:
        return ()
    if not stat.S_ISREG(status.st_mode):
        return ()
    return (status.st_mode & stat.S_IXUSR, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def _oid_of_pointer(path: Path) -> str:
    signature = _signature(path)
    if not signature or not 0 < signature[1] <= _MAX_POINTER_BYTES:
        return ""
    found = _POINTER.match(path.read_bytes())
    return found[1].decode("ascii") if found else ""


async def _mark(git: Git, index: Place, flag: str, paths: Collection[str]) -> None:
    if paths:
        arguments = ("update-index", flag, "-z", "--stdin")
        await git.run(*arguments, place=index, stdin=_lines(paths), timeout=_TIMEOUT)


def _lines(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


def _absent(objects: Path, files: Iterable[LfsFile]) -> list[str]:
    return [file.path for file in files if not _object(objects, file.oid).is_file()]


def _object(objects: Path, oid: str) -> Path:
    return objects / oid[:2] / oid[2:4] / oid


def _path(place: Place, path: str) -> Path:
    assert place.work_tree is not None
    return place.work_tree / path


def _read(place: Place) -> tuple[Path, list[LfsFile]] | None:
    try:
        record = json.loads((place.git_dir / _RECORD).read_bytes())
    except FileNotFoundError:
        return None
    files = [LfsFile(**entry | {"signature": tuple(entry["signature"])}) for entry in record["files"]]
    return Path(record["objects"]), files


def _write(place: Place, objects: Path, files: Iterable[LfsFile]) -> None:
    written = place.git_dir / f"{_RECORD}.new"
    # The standard library's: names that are not UTF-8 pass through it unchanged.
    written.write_text(json.dumps({"objects": str(objects), "files": [asdict(file) for file in files]}))
    written.rename(place.git_dir / _RECORD)


def _shown(paths: Sequence[str]) -> str:
    words = ", ".join(ascii(path) for path in paths[:5])
    return words if len(paths) <= 5 else f"{words} and {len(paths) - 5} more"  # noqa: PLR2004  the five above
