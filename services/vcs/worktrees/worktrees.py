"""Worktrees of attempts: made from a mirror, read as patches, removed. A newer attempt of a run displaces older ones.

Nothing that lies in a worktree says where its Git data is: that is in a repository of ours outside of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from services.runtime.telemetry import logger
from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError, LeaseLostError
from services.vcs.git.remotes import is_corruption
from services.vcs.git.repositories import Repository, parse_repository
from services.vcs.git.runner import Git, Place, Progress
from services.vcs.git.trees import BASE_INDEX, tree_of_commit, tree_of_patch
from services.vcs.mirrors.empty import EMPTY, ROOT_SHA
from services.vcs.mirrors.mirrors import Mirrors, ResolvedBase
from services.vcs.mirrors.reach import Reach, ReachOfRun
from services.vcs.worktrees import lfs, sparse, submodules
from services.vcs.worktrees.attempts import Attempts, Checkout, checked_run_id
from services.vcs.worktrees.checkouts import EVERYTHING, CheckoutOptions, CheckoutSlots, write_repository
from services.vcs.worktrees.known_changes import Pieces, Written, pieces_of, remembered, renewed, snapshot_of
from services.vcs.worktrees.listings import Listings
from services.vcs.worktrees.restoring import put_back, put_extras_again, write_pointer
from services.vcs.worktrees.snapshots import TICK, Snapshot, take_snapshot
from services.vcs.worktrees.spares import RESTORING, Spares
from services.vcs.worktrees.tidying import UntidyError

log = logger("vcs.worktrees")

_T = TypeVar("_T")
CHECKOUT_TIMEOUT: Final = timedelta(minutes=10)
# File systems tell times apart by 1 to 10 ms; coarser ones are not waited for.
_TICK_POLL: Final = timedelta(milliseconds=1)
_TICK_POLLS: Final = 25


@dataclass(frozen=True, slots=True)
class Ready:
    """``path``: the worktree. ``base_branch``: the branch that ``base_sha`` is from; empty for a tag or SHA."""

    path: Path
    base_sha: str
    base_branch: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a worktree is prepared from, and as whom its remotes are asked."""

    reach: Reach
    repository: Repository
    base_ref: str
    base_sha: str
    patch: bytes
    options: CheckoutOptions
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class _Preparing:
    attempt: int
    task: asyncio.Task[Ready]


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """``pieces``: None: they have to be looked for."""

    pieces: Pieces | None


_NOTHING: Final = _Known(None)


class Worktrees:
    def __init__(
        self,
        root: Path,
        mirrors: Mirrors,
        git: Git,
        *,
        allow_lfs: bool = True,
        reach_of: ReachOfRun | None = None,
        most_spares: int = 0,
    ) -> None:
        """``root``: the data folder that agents of this node share; made if absent. ``allow_lfs``: whether contents in
        Git LFS may be asked for: its program resolves and follows addresses by itself. ``reach_of``: None: all runs'
        remotes are asked by ``git``. ``most_spares``: worktrees kept for the next run of one owner on one repository.
        """
        self._allow_lfs = allow_lfs
        self._git = git
        self._mirrors = mirrors
        self._own_reach = Reach(git, mirrors)
        self._reach_of = reach_of or self._own
        self._attempts = Attempts(root)
        self.spares = Spares(root, self._attempts, git, most=most_spares)
        self._slots = CheckoutSlots()
        self._preparing: dict[str, _Preparing] = {}
        # Of plain worktrees, what the last snapshot found.
        self._known: dict[tuple[str, int], _Known] = {}
        self._listings = Listings()

    async def sweep(self) -> None:
        """Remove what a killed process was removing; for the start of the service."""
        await self._attempts.sweep()

    async def prepare(
        self,
        run_id: str,
        attempt: int,
        repository: Repository,
        *,
        base_ref: str = "",
        base_sha: str = "",
        patch: bytes = b"",
        checkout: CheckoutOptions = EVERYTHING,
        progress: Progress | None = None,
    ) -> Ready:
        """Make the attempt's worktree: the base checked out, ``patch`` (`git diff --binary` against it) restored.

        ``repository``: ``EMPTY`` for an empty folder, whose base is ``ROOT_SHA`` everywhere.
        Whatever lower attempts of the run left is removed, one that is still preparing is stopped. The same attempt
        again begins anew. Raises ``LeaseLostError`` where a higher attempt is here or comes meanwhile,
        ``CloneFailedError``, ``PatchRefusedError``, ``RefRefusedError``, ``PathRefusedError``,
        ``LfsUnavailableError``, ``RepositoryRefusedError``, ``CredentialsError``, ``BusyError``; then nothing of it is
        left.
        """
        if checkout.lfs:
            lfs.require_allowed(allowed=self._allow_lfs)
            lfs.require_program()
        options = replace(checkout, path=sparse.checked_path(checkout.path))
        reach = await self._reach_of(checked_run_id(run_id))
        await self._displace(run_id, attempt)
        asked = _Asked(reach, repository, base_ref, base_sha, patch, options, progress)
        task = asyncio.create_task(self._prepare(run_id, attempt, asked))
        self._preparing[run_id] = _Preparing(attempt, task)
        task.add_done_callback(lambda done: self._forget(run_id, done))
        try:
            await asyncio.wait([task])
        finally:
            # Where this call was cancelled: the work is undone before its caller goes on.
            task.cancel()
            await asyncio.wait([task])
        if task.cancelled():
            raise LeaseLostError(f"attempt {attempt} of run {run_id} was released or displaced while it was prepared")
        return task.result()

    async def checkpoint(self, run_id: str, attempt: int, *, written: Sequence[Written] = ()) -> Snapshot:
        """The worktree against its base.

        ``written``: all that was written since the last call, files of the base or of that snapshot, each once; empty:
        not known. Raises ``UnknownWorktreeError``, ``LeaseLostError``, ``PatchTooLargeError``, ``GitError``.
        """
        checkout, place = self.located(run_id, attempt)
        pieces: Pieces | None = None
        known = self._known.get((run_id, attempt), _NOTHING).pieces
        looking = self._forget_known(run_id, attempt)  # until this has succeeded
        if known is not None and written:
            pieces = await renewed(self._git, self._listings, place, checkout.base_sha, known, written)
        if pieces is not None:
            snapshot = snapshot_of(pieces)
        else:
            snapshot = await self.compared(checkout, lambda: take_snapshot(self._git, place, checkout.base_sha))
            pieces = pieces_of(snapshot)
        if self._known.get((run_id, attempt)) is looking:  # else somebody looked later, or put something back
            self._known[run_id, attempt] = _Known(remembered(pieces))
        return snapshot

    async def compared(self, checkout: Checkout, compare: Callable[[], Awaitable[_T]]) -> _T:
        """What ``compare`` returns; where that lacks content, from a mirror that was given it.

        A partial mirror of a sparse worktree has no more than the folder needs, and files may be written elsewhere.
        """
        try:
            return await compare()
        except GitError:
            if not checkout.path:
                raise
            mirrors = (await self._reach_of(checkout.run_id)).mirrors
            await mirrors.complete(self._repository(checkout), checkout.base_sha)
            return await compare()

    async def restore(self, run_id: str, attempt: int, patch: bytes) -> None:
        """Put the worktree back to exactly its base and ``patch``; what is ignored stays where it can. Safe to repeat.

        Raises ``UnknownWorktreeError``, ``LeaseLostError``, ``PatchRefusedError``, ``GitError``, ``GitTimeoutError``.
        """
        checkout, place = self.located(run_id, attempt)
        if checkout.path and patch:
            mirrors = (await self._reach_of(run_id)).mirrors
            await mirrors.complete(self._repository(checkout), checkout.base_sha, paths=(checkout.path,), patch=patch)
        self._forget_known(run_id, attempt)
        mark = place.git_dir / RESTORING
        mark.touch()
        await self._restore(checkout, place, patch)
        self._forget_known(run_id, attempt)  # what somebody saw of it half-way
        mark.unlink(missing_ok=True)

    def located(self, run_id: str, attempt: int) -> tuple[Checkout, Place]:
        """What was checked out and where; raises ``UnknownWorktreeError``, ``LeaseLostError``."""
        return self._attempts.load(run_id, attempt), self._attempts.place(run_id, attempt)

    def present(self) -> list[tuple[str, int]]:
        """Every run and attempt of which anything is on this node, for a sweep of what nobody released."""
        return self._attempts.present()

    async def release(self, run_id: str, attempt: int, *, reusable: bool = False) -> None:
        """Remove the attempt's worktree and, with the run's last, its pin. Releasing what is gone succeeds.

        ``reusable``: nothing that the attempt started can write there any more, so that it may become a spare.
        """
        under_way = self._preparing.get(checked_run_id(run_id))
        if under_way is not None and under_way.attempt == attempt:
            await _stop(under_way)
        mirror = self._attempts.mirror_of(run_id, attempt)
        if reusable and mirror:
            with suppress(LeaseLostError):  # displaced, so nobody knows who else is in it
                self.spares.keep(self._attempts.load(run_id, attempt))
        await self._discard(run_id, attempt, mirror)

    async def _displace(self, run_id: str, attempt: int) -> None:
        while (other := self._preparing.get(run_id)) is not None:
            if other.attempt > attempt:
                raise LeaseLostError(f"attempt {other.attempt} of run {run_id} is here; attempt {attempt} must stop")
            await _stop(other)
        self._attempts.refuse_fenced(run_id, attempt)

    async def _prepare(self, run_id: str, attempt: int, asked: _Asked) -> Ready:
        for older in self._attempts.numbers(run_id):
            self._known.pop((run_id, older), None)
            await self._attempts.discard(run_id, older)
        try:
            base = await self._fetched(run_id, asked, ROOT_SHA if asked.repository == EMPTY else asked.base_sha)
            try:
                await self._make(run_id, attempt, base, asked)
            except CloneFailedError as error:
                if not is_corruption(error.git_message):
                    raise
                await self._attempts.discard(run_id, attempt)
                await asked.reach.mirrors.rebuild(asked.repository)
                await self._fetched(run_id, asked, base.sha)
                await self._make(run_id, attempt, base, asked)
        except BaseException:
            # A task of its own: a second cancellation must not leave half a worktree behind.
            await asyncio.shield(asyncio.create_task(self._discard(run_id, attempt, asked.repository.folder)))
            raise
        return Ready(self._attempts.worktree(run_id, attempt), base.sha, base.branch)

    async def _fetched(self, run_id: str, asked: _Asked, sha: str) -> ResolvedBase:
        """The base, in the mirror with all that a checkout of it reads."""
        repository, path, progress = asked.repository, asked.options.path, asked.progress
        mirrors = asked.reach.mirrors
        base = await mirrors.fetch(repository, ref=asked.base_ref, sha=sha, pin=run_id, progress=progress)
        if path:
            await sparse.require_folder(self._git, mirrors.place(repository), base.sha, path)
        paths, patch = ((path,), asked.patch) if path else ((), b"")
        await mirrors.complete(repository, base.sha, paths=paths, patch=patch, progress=progress)
        return base

    async def _make(self, run_id: str, attempt: int, base: ResolvedBase, asked: _Asked) -> None:
        repository = asked.repository
        path = asked.options.path
        owner = asked.reach.owner if asked.options == EVERYTHING and repository != EMPTY else ""
        checkout = Checkout(run_id, attempt, repository.folder, base.sha, base.branch, repository.url, path, owner)
        place = self._attempts.place(run_id, attempt)
        try:
            async with self._slots.slot() as workers:
                self._begin(checkout, place, asked, workers)
                if not (self.spares.take(checkout) and await self._made_of_spare(checkout, place, asked, workers)):
                    write_pointer(place)
                    await self._check_out(checkout, place, asked)
            await self._put_extras(place, base.sha, asked)
            given_at_ns = await _next_tick(place.git_dir)
            self._attempts.record(replace(checkout, given_at_ns=given_at_ns))
            if asked.options == EVERYTHING:
                self._known[run_id, attempt] = _Known(None if asked.patch else {})
        except (GitError, GitTimeoutError) as error:
            words = f"{repository.url} could not be checked out at {base.sha}"
            told = error.git_message or error.message
            raise CloneFailedError(words, git_message=told, retryable=error.retryable) from error

    def _begin(self, checkout: Checkout, place: Place, asked: _Asked, workers: int) -> None:
        """An empty worktree, and the attempt's own repository."""
        self._attempts.create(checkout.run_id, checkout.attempt)
        mirror = self._mirrors.place(asked.repository).git_dir
        write_repository(place.git_dir, mirror, checkout.base_sha, path=checkout.path, workers=workers)

    async def _made_of_spare(self, checkout: Checkout, place: Place, asked: _Asked, workers: int) -> bool:
        """Whether the worktree is made of the spare that was taken; where not, all is as ``_begin`` left it."""
        try:
            await self.spares.lay(checkout)
            write_pointer(place)
            await self._check_out(checkout, place, asked)
        except (GitError, GitTimeoutError, UntidyError, OSError) as error:
            log.info("a spare worktree is not used", run=checkout.run_id, error=str(error))
            with suppress(OSError):  # out of the way it is, and the next start of the service tries again
                await self._attempts.discard(checkout.run_id, checkout.attempt)
            self._begin(checkout, place, asked, workers)
            return False
        return True

    async def _check_out(self, checkout: Checkout, place: Place, asked: _Asked) -> None:
        """One checkout of base and patch together: what the worktree then holds is the tree, exactly.

        A sparse one in two, for the patch may hold files outside of the folder: the index then has them as in the base.
        """
        base_sha, patch = checkout.base_sha, asked.patch
        at_once = patch and not checkout.path
        tree = await tree_of_patch(self._git, place, base_sha, patch) if at_once else base_sha
        arguments = ("read-tree", "--reset", "-u", "-v", tree)
        await self._git.run(*arguments, place=place, timeout=CHECKOUT_TIMEOUT, progress=asked.progress)
        if tree == base_sha:
            (place.git_dir / BASE_INDEX).hardlink_to(place.git_dir / "index")
        if patch and checkout.path:
            await _next_tick(place.git_dir)
            await self._restore(checkout, place, patch)

    async def _put_extras(self, place: Place, base_sha: str, asked: _Asked) -> None:
        reach, repository, options, progress = asked.reach, asked.repository, asked.options, asked.progress
        if options.submodules:
            await submodules.check_out(reach.git, reach.mirrors, repository, place, base_sha, progress)
        else:
            await submodules.note_folders(self._git, place)
        if options.lfs:
            mirror = self._mirrors.place(repository)
            await lfs.put_contents(reach.git, repository, mirror, place, base_sha, progress)

    async def _restore(self, checkout: Checkout, place: Place, patch: bytes) -> None:
        base_sha = checkout.base_sha
        if patch:
            tree = await tree_of_patch(self._git, place, base_sha, patch)
        else:
            tree = await tree_of_commit(self._git, place, base_sha)
        if not await put_back(self._git, place, base_sha, tree):
            await self._make_anew(checkout, place, tree)

    async def _make_anew(self, checkout: Checkout, place: Place, tree: str) -> None:
        """The worktree from nothing, where programs left what Git cannot work on, such as pipes."""
        await self._attempts.empty(checkout.run_id, checkout.attempt)
        index = place.git_dir / "index.new"
        index.unlink(missing_ok=True)
        fresh = replace(place, index=index)
        await self._git.run("read-tree", "--reset", "-u", tree, place=fresh, timeout=CHECKOUT_TIMEOUT)
        await sparse.show_changes(self._git, fresh, checkout.base_sha, tree)
        await put_extras_again(self._git, place, fresh)
        # Only now: whenever this is cut short, an index is there to begin again from.
        index.rename(place.git_dir / "index")
        await _next_tick(place.git_dir)

    async def _own(self, _run_id: str) -> Reach:
        return self._own_reach

    def _repository(self, checkout: Checkout) -> Repository:
        return parse_repository(checkout.url, allow_local=self._git.allow_local)

    async def _discard(self, run_id: str, attempt: int, mirror: str) -> None:
        self._known.pop((run_id, attempt), None)
        await self._attempts.discard(run_id, attempt)
        if mirror and not self._attempts.numbers(run_id):
            await self._mirrors.unpin(mirror, run_id)

    def _forget_known(self, run_id: str, attempt: int) -> _Known:
        """What stands for it from now on."""
        nothing = _Known(None)
        if (run_id, attempt) in self._known:
            self._known[run_id, attempt] = nothing
        return nothing

    def _forget(self, run_id: str, task: asyncio.Task[Ready]) -> None:
        entry = self._preparing.get(run_id)
        if entry is not None and entry.task is task:
            del self._preparing[run_id]
        if not task.cancelled():
            task.exception()  # seen: a caller that went away does not ask for it


async def _stop(preparing: _Preparing) -> None:
    preparing.task.cancel()
    await asyncio.wait([preparing.task])


async def _next_tick(git_dir: Path) -> int:
    """Return once the file system's clock has moved on since the checkout; what it says then, 0 where it has not.

    Whatever is written from now on has another time than Git recorded, so no change can pass for the checkout's file.
    """
    written = (git_dir / "index").stat().st_mtime_ns
    for _ in range(_TICK_POLLS):
        (git_dir / TICK).touch()
        now = (git_dir / TICK).stat().st_mtime_ns
        if now > written:
            return now
        await asyncio.sleep(_TICK_POLL.total_seconds())
    return 0
