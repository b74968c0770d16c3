"""Where an attempt's worktree and its Git data lie, and which attempts are there. Runs no Git.

The worktree is the agent's to change; the state folder beside it is ours, and no agent or sandbox reaches it.
"""

import errno
import re
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

from services.vcs.errors import LeaseLostError, UnknownWorktreeError, WorktreeRefusedError
from services.vcs.git.runner import Place
from services.vcs.mirrors.files import remove_tree

_RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MAX_ATTEMPT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Checkout:
    """What was checked out for an attempt; written once its worktree is complete.

    ``url``: of the repository. ``path``: the folder of it that is there; empty: everything. ``owner``: whose next runs
    may take the worktree over; empty: nobody's. ``given_at_ns``: a time of the file system, later than the checkout's
    last write and not later than the agent's first; 0 where it tells no times that are as short.
    """

    run_id: str
    attempt: int
    mirror: str
    base_sha: str
    base_branch: str
    url: str = ""
    path: str = ""
    owner: str = ""
    given_at_ns: int = 0


class Attempts:
    def __init__(self, root: Path) -> None:
        self._worktrees = root / "worktrees"
        self._state = root / "state"
        self._trash = root / "trash"

    def worktree(self, run_id: str, attempt: int) -> Path:
        return self._worktrees / checked_run_id(run_id) / str(_checked_attempt(attempt))

    def state(self, run_id: str, attempt: int) -> Path:
        return self._state / checked_run_id(run_id) / str(_checked_attempt(attempt))

    def place(self, run_id: str, attempt: int) -> Place:
        """The attempt's own small repository, which borrows its mirror's objects and holds its index."""
        return Place(self.state(run_id, attempt) / "git", work_tree=self.worktree(run_id, attempt))

    def numbers(self, run_id: str) -> list[int]:
        """The attempts of which anything is here, half made ones included."""
        folders = (self._worktrees / checked_run_id(run_id), self._state / run_id)
        names = {entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()}
        return sorted(int(name) for name in names if name.isdecimal() and 0 < int(name) <= _MAX_ATTEMPT)

    def create(self, run_id: str, attempt: int) -> None:
        """Make both folders, empty; they must not be there."""
        self.worktree(run_id, attempt).mkdir(parents=True)
        self.state(run_id, attempt).mkdir(parents=True)

    def record(self, checkout: Checkout) -> None:
        path = self._record(checkout.run_id, checkout.attempt)
        written = path.with_suffix(".new")
        written.write_bytes(orjson.dumps(asdict(checkout)))
        written.rename(path)

    def load(self, run_id: str, attempt: int) -> Checkout:
        """Raises ``LeaseLostError`` where a higher attempt is here, ``UnknownWorktreeError`` where this one is not."""
        self.refuse_fenced(run_id, attempt)
        checkout = self._read(run_id, attempt)
        if checkout is None:
            words = f"run {run_id} has no worktree for attempt {attempt} on this node; prepare it first"
            raise UnknownWorktreeError(words)
        return checkout

    def mirror_of(self, run_id: str, attempt: int) -> str:
        """The folder name of the attempt's mirror; empty where the attempt is not here, or not as a whole."""
        try:
            checkout = self._read(run_id, attempt)
        except OSError:
            return ""
        return checkout.mirror if checkout else ""

    def present(self) -> list[tuple[str, int]]:
        """Every run and attempt of which anything is here; what else lies in the folders is not ours."""
        folders = (folder for folder in (self._worktrees, self._state) if folder.is_dir())
        names = {entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()}
        runs = (name for name in names if _RUN_ID.fullmatch(name))
        return sorted((run_id, number) for run_id in runs for number in self.numbers(run_id))

    def folders(self, run_id: str, attempt: int) -> tuple[Path, Path]:
        """All that an attempt takes on the disk."""
        return self.state(run_id, attempt), self.worktree(run_id, attempt)

    def trash(self) -> Path:
        """Where what is being removed lies meanwhile."""
        return self._trash

    def begun_at(self, run_id: str, attempt: int) -> float:
        """When its folders were made, or a little later, in seconds since the epoch; 0 where none is there."""
        folders = self.folders(run_id, attempt)
        return max((folder.stat().st_mtime for folder in folders if folder.is_dir()), default=0.0)

    def refuse_fenced(self, run_id: str, attempt: int) -> None:
        newest = max(self.numbers(run_id), default=attempt)
        if newest > attempt:
            raise LeaseLostError(f"attempt {newest} of run {run_id} is here; attempt {attempt} must stop")

    def without_record(self, run_id: str, attempt: int) -> Path:
        """The attempt's state folder, after which it is only half made."""
        self._record(run_id, attempt).unlink(missing_ok=True)
        return self.state(run_id, attempt)

    async def discard(self, run_id: str, attempt: int) -> None:
        """Remove all of an attempt. It is out of the way at once, its files a little later."""
        # The record goes first: an attempt is never ready without its worktree.
        self.without_record(run_id, attempt)
        aside = []
        for folder in self.folders(run_id, attempt):
            if folder.exists():
                aside.append(await self.put_aside(folder))
            _remove_if_empty(folder.parent)
        for folder in aside:
            await remove_tree(folder)

    async def empty(self, run_id: str, attempt: int) -> None:
        """Put an empty folder where the attempt's worktree is."""
        worktree = self.worktree(run_id, attempt)
        aside = await self.put_aside(worktree) if worktree.exists() else None
        worktree.mkdir()
        if aside is not None:
            await remove_tree(aside)

    async def put_aside(self, folder: Path) -> Path:
        """Move ``folder`` to the trash, at once; where that is on another volume, remove it on the spot instead.

        Raises ``FileNotFoundError`` where it is gone.
        """
        self._trash.mkdir(parents=True, exist_ok=True)
        aside = self._trash / uuid.uuid4().hex
        if not _moved(folder, aside):
            await remove_tree(folder)
        return aside

    async def sweep(self) -> None:
        """Remove what a killed process had put aside; for the start of the service."""
        for folder in list(self._trash.iterdir()) if self._trash.is_dir() else ():
            with suppress(OSError):  # what cannot be removed keeps nobody from working
                await remove_tree(folder)

    def _read(self, run_id: str, attempt: int) -> Checkout | None:
        path = self._record(run_id, attempt)
        try:
            return Checkout(**orjson.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:  # after a power cut
            raise OSError(errno.EIO, f"cannot be read ({error}); see what is in the worktree", str(path)) from error

    def _record(self, run_id: str, attempt: int) -> Path:
        return self.state(run_id, attempt) / "checkout.json"


def checked_run_id(run_id: str) -> str:
    if not _RUN_ID.fullmatch(run_id):
        raise WorktreeRefusedError(f"{run_id[:100]!a} is no run id; send the id that the run was created with")
    return run_id


def _checked_attempt(attempt: int) -> int:
    if not 0 < attempt <= _MAX_ATTEMPT:
        raise WorktreeRefusedError(f"{attempt} is no attempt number; they count from 1")
    return attempt


def _moved(folder: Path, target: Path) -> bool:
    """False where the two are on different volumes."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # another attempt of the run lives there, or none of the run does
