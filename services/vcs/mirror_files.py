"""The files of a mirror and the removal of folders, where Git has no command for it. Callers hold the mirror's lock."""

import contextlib
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.processes import run_process

REMOVE_TIMEOUT: Final = timedelta(minutes=5)
# A reference is locked for milliseconds; a lock as old as this has lost its holder.
STALE_LOCK: Final = timedelta(minutes=1)


def is_whole(git_dir: Path) -> bool:
    """Whether this can be a repository at all; damage inside is found by the command that meets it."""
    return (git_dir / "HEAD").is_file() and (git_dir / "objects").is_dir() and (git_dir / "refs").is_dir()


def temporary_mirror(git_dir: Path) -> Path:
    git_dir.parent.mkdir(parents=True, exist_ok=True)
    return git_dir.with_name(f".{git_dir.stem}.{uuid.uuid4().hex}.new")


def replace_mirror(fresh: Path, git_dir: Path) -> None:
    """Put ``fresh`` in place; what was there is left at the name of ``fresh`` for the caller to remove."""
    aside = fresh.with_suffix(".old")
    if git_dir.exists():
        git_dir.rename(aside)
    fresh.rename(git_dir)
    if aside.exists():
        aside.rename(fresh)


def clear_leftovers(git_dir: Path) -> None:
    """Remove what a killed fetch left behind: its locks and half-written packs.

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


def _age_seconds(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0
