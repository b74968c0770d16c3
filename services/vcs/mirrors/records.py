"""What a mirror's folder says of itself: whose it is, how it was made, when it was used. Runs no Git."""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

from services.vcs.mirrors.options import MirrorOptions

_RECORD: Final = "quarterdeck.json"
_USED: Final = "quarterdeck.used"
_FETCHED: Final = "quarterdeck.fetched"
_COMPLETE: Final = "quarterdeck.complete"
_BLOCK_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class MirrorRecord:
    """``key``: host/owner/name. ``url``: without credentials. The rest: the ``MirrorOptions`` it was made with."""

    key: str = ""
    url: str = ""
    filter: str = ""
    depth: int = 0

    @property
    def options(self) -> MirrorOptions:
        return MirrorOptions(self.filter, self.depth)


@dataclass(frozen=True, slots=True)
class MirrorFolder:
    """``folder``: its name, without .git. ``key`` (host/owner/name) and ``url`` are empty where nothing tells them.

    ``bytes``: what it takes of the disk. Times: seconds since the epoch.
    """

    folder: str
    key: str
    url: str
    bytes: int
    used_at: float
    fetched_at: float


def read_record(git_dir: Path) -> MirrorRecord:
    """An empty one where there is none or it is damaged: such a mirror is taken for a whole one until Git differs."""
    try:
        return MirrorRecord(**orjson.loads((git_dir / _RECORD).read_bytes()))
    except (OSError, ValueError, TypeError):
        return MirrorRecord()


def write_record(git_dir: Path, record: MirrorRecord) -> None:
    if read_record(git_dir) == record:
        return
    written = git_dir / f"{_RECORD}.new"
    written.write_bytes(orjson.dumps(asdict(record)))
    written.rename(git_dir / _RECORD)


def mark_used(git_dir: Path) -> None:
    # The mirror may not be there (yet).
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (git_dir / _USED).touch()


def mark_fetched(git_dir: Path) -> None:
    (git_dir / _FETCHED).touch()


def is_complete(git_dir: Path, sha: str, paths: Sequence[str]) -> bool:
    """Whether all content that ``paths`` of a commit need (none: all of it) was found or fetched before."""
    return _completion(git_dir, sha, paths).exists()


def mark_complete(git_dir: Path, sha: str, paths: Sequence[str]) -> None:
    mark = _completion(git_dir, sha, paths)
    mark.parent.mkdir(exist_ok=True)
    mark.touch()


def forget_complete(git_dir: Path) -> None:
    """From time to time, for a mark stays behind for each commit that was ever checked out."""
    shutil.rmtree(git_dir / _COMPLETE, ignore_errors=True)


def used_at(git_dir: Path) -> float:
    """When a run last needed the mirror, in seconds since the epoch; else when it was last fetched, or made."""
    return _time_of(git_dir / _USED, git_dir / _FETCHED, git_dir)


def describe(git_dir: Path) -> MirrorFolder:
    """Walks all of the mirror: for a thread."""
    record = read_record(git_dir)
    fetched = _time_of(git_dir / _FETCHED, git_dir)
    return MirrorFolder(git_dir.stem, record.key, record.url, disk_bytes(git_dir), used_at(git_dir), fetched)


def disk_bytes(folder: Path) -> int:
    """What the files beneath a folder take on the disk; files may come and go meanwhile. For a thread."""
    total, folders = 0, [folder]
    while folders:
        with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
    return total


def _completion(git_dir: Path, sha: str, paths: Sequence[str]) -> Path:
    digest = hashlib.sha256("\0".join(paths).encode("utf-8", "surrogateescape")).hexdigest()
    return git_dir / _COMPLETE / f"{sha}-{digest[:32]}"


def _time_of(*paths: Path) -> float:
    """When the first of them that is there was written; now where none is."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_mtime
    return time.time()
