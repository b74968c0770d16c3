"""Worktrees that runs are done with, kept for the next run of the same owner on the same repository.

Making thousands of files takes longer than looking at them. Nothing in a spare is trusted: see `tidying`, and
docs/adr/0017-a-released-worktree-is-a-spare.md.
"""

import asyncio
import hashlib
import os
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import orjson

from services.runtime.telemetry import logger
from services.vcs.git.runner import Git, Place
from services.vcs.mirrors.files import remove_tree
from services.vcs.worktrees import submodules
from services.vcs.worktrees.attempts import Attempts, Checkout
from services.vcs.worktrees.tidying import tidy

log = logger("vcs.spares")

KEPT_FOR: Final = timedelta(hours=6)
# Where there are fewer files, checking them out afresh is as quick.
LEAST_FILES: Final = 2_000
# Beside the index, while the worktree is being put back: whoever does that may still write where nobody waits for it.
RESTORING: Final = "restoring"
_LIST_TIMEOUT: Final = timedelta(minutes=1)
_RECORD: Final = "spare.json"
_TREE, _INDEX, _OUT = "tree", "index", "out"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SECOND: Final = 10**9


@dataclass(frozen=True, slots=True)
class Spare:
    """``owner``: a digest of the owner's name. ``kept_at``: seconds since the epoch."""

    path: Path
    mirror: str
    owner: str
    kept_at: float

    @property
    def is_old(self) -> bool:
        return time.time() - self.kept_at > KEPT_FOR.total_seconds()


@dataclass(frozen=True, slots=True)
class _Record:
    """``given_at_ns``: as in ``Checkout``. ``boot_id``: after a power cut files may lack what was written to them."""

    given_at_ns: int
    boot_id: str


class Spares:
    def __init__(self, root: Path, attempts: Attempts, git: Git, *, most: int) -> None:
        """``root``: the data folder of this vcs. ``most``: for one owner and mirror, 0: none at all."""
        self._root = root
        self._attempts = attempts
        self._git = git
        self._most = most
        self._removing: set[asyncio.Task[None]] = set()

    @property
    def is_on(self) -> bool:
        return self._most > 0

    def keep(self, checkout: Checkout) -> None:
        """Make the attempt's worktree a spare, where it is fit for one; what then is left of the attempt may go.

        It becomes one by the last rename, as a whole; until then all of it is part of the attempt. Whoever calls this
        knows that nothing of the attempt can write any more.
        """
        place = self._attempts.place(checkout.run_id, checkout.attempt)
        try:
            boot_id = _BOOT_ID.read_text().strip()
            if not self._is_fit(checkout, place):
                return
            folder = self._attempts.without_record(checkout.run_id, checkout.attempt) / "spare"
            folder.mkdir()
            assert place.work_tree is not None
            place.work_tree.rename(folder / _TREE)
            (place.git_dir / "index").rename(folder / _INDEX)
            (folder / _RECORD).write_bytes(orjson.dumps(asdict(_Record(checkout.given_at_ns, boot_id))))
            _folder(self._root).mkdir(exist_ok=True)
            folder.rename(_folder(self._root) / _name(checkout))
        except OSError as error:
            log.info("a worktree is not kept as a spare", run=checkout.run_id, error=str(error))
            return
        for oldest in self._of(checkout)[: -self._most]:
            self._remove_later(oldest.path)

    def take(self, checkout: Checkout) -> bool:
        """Move the newest spare for ``checkout`` to its state folder: by a rename, so that nobody else gets it."""
        into = self._taken(checkout)
        for spare in reversed(self._of(checkout) if self.is_on and checkout.owner else []):
            if not spare.is_old:
                with suppress(OSError):  # another one has taken or removed it
                    spare.path.rename(into)
                    return True
        return False

    async def lay(self, checkout: Checkout) -> None:
        """Make what was taken the attempt's worktree and index: with less in it than was checked out, but no more.

        A checkout then adds what is missing. Raises ``UntidyError``, ``OSError``, ``GitError``, ``GitTimeoutError``.
        """
        spare, place = self._taken(checkout), self._attempts.place(checkout.run_id, checkout.attempt)
        tree, index, out, fresh = spare / _TREE, spare / _INDEX, spare / _OUT, place.work_tree
        assert fresh is not None
        try:
            record = _Record(**orjson.loads((spare / _RECORD).read_bytes()))
        except (ValueError, TypeError) as error:
            raise OSError(f"{_RECORD} cannot be read ({error})") from error
        if record.boot_id != _BOOT_ID.read_text().strip():
            raise OSError("it was made before this machine was started")
        out.mkdir()
        at = Place(place.git_dir, work_tree=fresh, index=index)
        listed = await self._git.run("ls-files", "--stage", "-z", place=at, timeout=_LIST_TIMEOUT)
        await asyncio.to_thread(tidy, tree, out, listed, given_at_ns=record.given_at_ns, fresh=fresh)
        # No file that is left has changed since the checkout was over, which Git cannot tell for those of its last
        # second, in builds that know no shorter times: it would read each of them again.
        settled = (record.given_at_ns // _SECOND + 1) * _SECOND
        os.utime(index, ns=(settled, settled))
        fresh.rmdir()
        tree.rename(fresh)
        index.rename(place.git_dir / "index")
        self._remove_later(spare)

    async def remove(self, spare: Spare) -> None:
        """Removing what is gone succeeds. Raises ``OSError``, ``TimeoutError``."""
        await self._put_away(spare.path)

    def present(self) -> list[Spare]:
        """Oldest first."""
        return spares_in(self._root)

    async def settled(self) -> None:
        """Return once nothing is being removed any more."""
        while self._removing:
            await asyncio.wait(self._removing)

    def _is_fit(self, checkout: Checkout, place: Place) -> bool:
        return (
            self.is_on
            and bool(checkout.owner and checkout.given_at_ns)
            and not (place.git_dir / RESTORING).exists()
            and not submodules.are_in(place)
            and _files(place.git_dir / "index") >= LEAST_FILES
        )

    def _of(self, checkout: Checkout) -> list[Spare]:
        key = (checkout.mirror, _digest(checkout.owner))
        return [spare for spare in self.present() if (spare.mirror, spare.owner) == key]

    def _taken(self, checkout: Checkout) -> Path:
        return self._attempts.state(checkout.run_id, checkout.attempt) / "spare"

    def _remove_later(self, folder: Path) -> None:
        """Out of the way at once; its files go while nobody waits, or at the next start of the service."""
        task = asyncio.create_task(self._removed(folder), name="removal of a spare worktree")
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _removed(self, folder: Path) -> None:
        try:
            await self._put_away(folder)
        except (OSError, TimeoutError) as error:
            log.warning("what was in a worktree is removed at the next start", error=str(error))

    async def _put_away(self, folder: Path) -> None:
        with suppress(FileNotFoundError):
            await remove_tree(await self._attempts.put_aside(folder))


def spares_in(root: Path) -> list[Spare]:
    """Those of a vcs's data folder, oldest first."""
    found = [_spare(path) for path in _folder(root).glob("*.*.*.*")]
    return sorted((spare for spare in found if spare is not None), key=lambda spare: spare.path.name.rsplit(".", 2)[1:])


def _folder(root: Path) -> Path:
    return root / "spares"


def _name(checkout: Checkout) -> str:
    return f"{checkout.mirror}.{_digest(checkout.owner)}.{time.time_ns():020}.{uuid.uuid4().hex}"


def _spare(path: Path) -> Spare | None:
    """None: that is none of ours."""
    mirror, owner, nanoseconds, _ = path.name.rsplit(".", 3)
    return Spare(path, mirror, owner, int(nanoseconds) / _SECOND) if nanoseconds.isdecimal() else None


def _digest(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def _files(index: Path) -> int:
    """How many are in it, as its header says."""
    with index.open("rb") as file:
        return int.from_bytes(file.read(12)[8:], "big")
