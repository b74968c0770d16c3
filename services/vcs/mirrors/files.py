"""The files of a mirror and the removal of folders, where Git has no command for it. Callers hold the mirror's lock."""

import contextlib
import os
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.git.processes import run_process

REMOVE_TIMEOUT: Final = timedelta(minutes=5)
# A reference is locked for milliseconds; a lock as old as this has lost its holder.
STALE_LOCK: Final = timedelta(minutes=1)

_DEFAULT_BRANCH: Final = "refs/remotes/origin/HEAD"
_POINTER: Final = "ref: refs/remotes/origin/"


def is_whole(git_dir: Path) -> bool:
    """Whether this can be a repository at all; damage inside is found by the command that meets it."""
    return (git_dir / "HEAD").is_file() and (git_dir / "objects").is_dir() and (git_dir / "refs").is_dir()


def default_branch(git_dir: Path) -> str:
    """The branch that the remote's HEAD was on when it was last asked; empty where that is not known."""
    try:
        pointer = (git_dir / _DEFAULT_BRANCH).read_text("utf-8", "replace").strip()
    except OSError:
        return ""
    return pointer.removeprefix(_POINTER) if pointer.startswith(_POINTER) else ""


def temporary_mirror(git_dir: Path) -> Path:
    git_dir.parent.mkdir(parents=True, exist_ok=True)
    return git_dir.with_name(f".{git_dir.stem}.{uuid.uuid4().hex}.new")


def replace_mirror(fresh: Path, git_dir: Path) -> Path:
    """Put ``fresh`` in place; returns where what was there is now, for the caller to remove."""
    aside = fresh.with_suffix(".old")
    if git_dir.exists():
        git_dir.rename(aside)
    fresh.rename(git_dir)
    return aside


def put_aside(git_dir: Path) -> Path:
    """Take a mirror out of the way at once; returns where it is, for the caller to remove."""
    aside = temporary_mirror(git_dir).with_suffix(".gone")
    git_dir.rename(aside)
    return aside


def half_made(git_dir: Path) -> list[Path]:
    """What a process that was killed while it made, replaced or removed this mirror left, still to be removed.

    One that had taken the mirror away and not yet put the new one in its place: the old one is put back first.
    """
    beside = sorted(git_dir.parent.glob(f".{git_dir.stem}.{'[0-9a-f]' * 32}.*"))
    for aside in beside:
        if aside.suffix == ".old" and not git_dir.exists():
            aside.rename(git_dir)
    return [folder for folder in beside if folder.exists()]


def as_alternate(objects: Path) -> str:
    """A folder of objects for GIT_ALTERNATE_OBJECT_DIRECTORIES, where colons stand between several."""
    escaped = str(objects).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def clear_leftovers(git_dir: Path) -> None:
    """Remove what a killed fetch or a power cut left behind: locks, packs cut short, objects without content.

    Only a fetch writes the remote's references, and the caller is the only one to fetch; other locks may be those of
    a run that is being pinned at this moment, unless they are old.
    """
    ours = git_dir / "refs" / "quarterdeck"
    for lock in git_dir.rglob("*.lock"):
        shared = lock.is_relative_to(ours) or lock.name == "packed-refs.lock"
        if not shared or _age_seconds(lock) > STALE_LOCK.total_seconds():
            lock.unlink(missing_ok=True)
    for pack in (git_dir / "objects" / "pack").glob("tmp_*"):
        pack.unlink(missing_ok=True)
    for pack in (git_dir / "objects" / "pack").glob("*.pack"):
        if not _is_as_indexed(pack):
            # Git opens none of these either, and complains of them at every command.
            for part in pack.parent.glob(f"{pack.stem}.*"):
                part.unlink(missing_ok=True)
    for loose in (git_dir / "objects").glob("??/*"):
        # Git takes one for an object that need not be written again.
        if _is_empty(loose):
            loose.unlink(missing_ok=True)


async def remove_tree(folder: Path) -> None:
    """Remove a folder whatever an agent put into it: any depth, no permissions, links (never followed)."""
    if not _is_there(folder):
        return
    for command in (("rm", "-rf"), ("chmod", "-R", "u+rwX"), ("rm", "-rf")):
        ended = await run_process(
            (*command, "--", str(folder)),
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            folder=folder.parent,
            timeout=REMOVE_TIMEOUT,
            max_output_bytes=1024,
        )
        if not _is_there(folder):
            return
    raise OSError(f"{folder.name} could not be removed: {ended.stderr.decode('utf-8', 'replace')}")


def _is_there(folder: Path) -> bool:
    return folder.exists()


def _is_as_indexed(pack: Path) -> bool:
    """Whether a pack ends in the checksum that its index names: it is then as long as it was when it was written."""
    digest = len(pack.stem.removeprefix("pack-")) // 2
    try:
        ends = [_end_of(pack.with_suffix(suffix), size) for suffix, size in ((".pack", digest), (".idx", 2 * digest))]
    except FileNotFoundError:
        # Whoever writes one puts its index in place last.
        return _age_seconds(pack) <= STALE_LOCK.total_seconds()
    except OSError:
        return False
    return ends[0] == ends[1][:digest]


def _end_of(path: Path, size_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(-size_bytes, os.SEEK_END)
        return file.read(size_bytes)


def _is_empty(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size == 0
    return False


def _age_seconds(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0
