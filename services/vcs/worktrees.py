"""Worktrees of attempts: made from a mirror, read as patches, removed. A newer attempt of a run displaces older ones.

Nothing that lies in a worktree says where its Git data is: that is in a repository of ours outside of it.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.attempts import Attempts, Checkout, checked_run_id
from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError, LeaseLostError
from services.vcs.git import Git, Place, Progress
from services.vcs.mirrors import Mirrors
from services.vcs.remotes import is_corruption
from services.vcs.repositories import Repository
from services.vcs.restoring import put_back, write_pointer
from services.vcs.snapshots import TICK, Snapshot, take_snapshot
from services.vcs.trees import tree_of_commit, tree_of_patch

CHECKOUT_TIMEOUT: Final = timedelta(minutes=10)
_SHA1_DIGITS: Final = 40
# Stronger than any attribute of the repository's own: files are checked out and staged byte for byte. Converted, a file
# whose attributes contradict what is stored would count as changed whenever Git looks at its content again.
_AS_STORED: Final = "* -text !eol -ident -filter !working-tree-encoding\n"
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
class _Preparing:
    attempt: int
    task: asyncio.Task[Ready]


class Worktrees:
    def __init__(self, root: Path, mirrors: Mirrors, git: Git) -> None:
        """``root``: the data folder that agents of this node share; made if absent."""
        self._git = git
        self._mirrors = mirrors
        self._attempts = Attempts(root)
        self._preparing: dict[str, _Preparing] = {}

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
        progress: Progress | None = None,
    ) -> Ready:
        """Make the attempt's worktree: the base checked out, ``patch`` (`git diff --binary` against it) restored.

        Whatever lower attempts of the run left is removed, one that is still preparing is stopped. The same attempt
        again begins anew. Raises ``LeaseLostError`` where a higher attempt is here or comes meanwhile,
        ``CloneFailedError``, ``PatchRefusedError``, ``RefRefusedError``, ``BusyError``; then nothing of it is left.
        """
        await self._displace(checked_run_id(run_id), attempt)
        work = self._prepare(run_id, attempt, repository, base_ref, base_sha, patch, progress)
        task = asyncio.create_task(work)
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

    async def checkpoint(self, run_id: str, attempt: int) -> Snapshot:
        """The worktree against its base.

        Raises ``UnknownWorktreeError``, ``LeaseLostError``, ``PatchTooLargeError``, ``GitError``.
        """
        checkout = self._attempts.load(run_id, attempt)
        return await take_snapshot(self._git, self._attempts.place(run_id, attempt), checkout.base_sha)

    async def restore(self, run_id: str, attempt: int, patch: bytes) -> None:
        """Put the worktree back to exactly its base and ``patch``; what is ignored stays where it can. Safe to repeat.

        Raises ``UnknownWorktreeError``, ``LeaseLostError``, ``PatchRefusedError``, ``GitError``, ``GitTimeoutError``.
        """
        checkout, place = self.located(run_id, attempt)
        base_sha = checkout.base_sha
        if patch:
            tree = await tree_of_patch(self._git, place, base_sha, patch)
        else:
            tree = await tree_of_commit(self._git, place, base_sha)
        if not await put_back(self._git, place, base_sha, tree):
            await self._make_anew(run_id, attempt, place, tree)

    def located(self, run_id: str, attempt: int) -> tuple[Checkout, Place]:
        """What was checked out and where; raises ``UnknownWorktreeError``, ``LeaseLostError``."""
        return self._attempts.load(run_id, attempt), self._attempts.place(run_id, attempt)

    def present(self) -> list[tuple[str, int]]:
        """Every run and attempt of which anything is on this node, for a sweep of what nobody released."""
        return self._attempts.present()

    async def release(self, run_id: str, attempt: int) -> None:
        """Remove the attempt's worktree and, with the run's last, its pin. Releasing what is gone succeeds."""
        under_way = self._preparing.get(checked_run_id(run_id))
        if under_way is not None and under_way.attempt == attempt:
            await _stop(under_way)
        await self._discard(run_id, attempt, self._attempts.mirror_of(run_id, attempt))

    async def _displace(self, run_id: str, attempt: int) -> None:
        while (other := self._preparing.get(run_id)) is not None:
            if other.attempt > attempt:
                raise LeaseLostError(f"attempt {other.attempt} of run {run_id} is here; attempt {attempt} must stop")
            await _stop(other)
        self._attempts.refuse_fenced(run_id, attempt)

    async def _prepare(
        self,
        run_id: str,
        attempt: int,
        repository: Repository,
        base_ref: str,
        base_sha: str,
        patch: bytes,
        progress: Progress | None,
    ) -> Ready:
        for older in self._attempts.numbers(run_id):
            await self._attempts.discard(run_id, older)
        base = await self._mirrors.fetch(repository, ref=base_ref, sha=base_sha, progress=progress)
        checkout = Checkout(run_id, attempt, repository.folder, base.sha, base.branch)
        try:
            await self._make(checkout, repository, patch, progress)
        except CloneFailedError as error:
            if not is_corruption(error.git_message):
                raise
            await self._mirrors.rebuild(repository)
            await self._mirrors.fetch(repository, sha=base.sha, progress=progress)
            await self._make(checkout, repository, patch, progress)
        return Ready(self._attempts.worktree(run_id, attempt), base.sha, base.branch)

    async def _make(self, checkout: Checkout, repository: Repository, patch: bytes, progress: Progress | None) -> None:
        run_id, attempt = checkout.run_id, checkout.attempt
        try:
            await self._mirrors.pin(repository, run_id, checkout.base_sha)
            self._attempts.create(run_id, attempt)
            place = self._attempts.place(run_id, attempt)
            _write_repository(place.git_dir, self._mirrors.place(repository).git_dir, checkout.base_sha)
            write_pointer(place)
            await self._check_out(place, checkout.base_sha, patch, progress)
            await _next_tick(place.git_dir)
            self._attempts.record(checkout)
        except BaseException as error:
            # A task of its own: a second cancellation must not leave half a worktree behind.
            await asyncio.shield(asyncio.create_task(self._discard(run_id, attempt, checkout.mirror)))
            if isinstance(error, (GitError, GitTimeoutError)):
                words = f"{repository.url} could not be checked out at {checkout.base_sha}"
                told = error.git_message or error.message
                raise CloneFailedError(words, git_message=told, retryable=error.retryable) from error
            raise

    async def _check_out(self, place: Place, base_sha: str, patch: bytes, progress: Progress | None) -> None:
        """One checkout of base and patch together: what the worktree then holds is the tree, exactly."""
        tree = await tree_of_patch(self._git, place, base_sha, patch) if patch else base_sha
        arguments = ("read-tree", "--reset", "-u", "-v", tree)
        await self._git.run(*arguments, place=place, timeout=CHECKOUT_TIMEOUT, progress=progress)

    async def _make_anew(self, run_id: str, attempt: int, place: Place, tree: str) -> None:
        """The worktree from nothing, where programs left what Git cannot work on, such as pipes."""
        await self._attempts.empty(run_id, attempt)
        write_pointer(place)
        index = place.git_dir / "index.new"
        index.unlink(missing_ok=True)
        fresh = replace(place, index=index)
        await self._git.run("read-tree", "--reset", "-u", tree, place=fresh, timeout=CHECKOUT_TIMEOUT)
        # Only now: whenever this is cut short, an index is there to begin again from.
        index.rename(place.git_dir / "index")
        await _next_tick(place.git_dir)

    async def _discard(self, run_id: str, attempt: int, mirror: str) -> None:
        await self._attempts.discard(run_id, attempt)
        if mirror and not self._attempts.numbers(run_id):
            await self._mirrors.unpin(mirror, run_id)

    def _forget(self, run_id: str, task: asyncio.Task[Ready]) -> None:
        entry = self._preparing.get(run_id)
        if entry is not None and entry.task is task:
            del self._preparing[run_id]
        if not task.cancelled():
            task.exception()  # seen: a caller that went away does not ask for it


async def _stop(preparing: _Preparing) -> None:
    preparing.task.cancel()
    await asyncio.wait([preparing.task])


def _write_repository(git_dir: Path, mirror: Path, base_sha: str) -> None:
    """A repository of the attempt's own, made of four files: nothing in it is shared but the mirror's objects.

    What agents stage never reaches the mirror, goes away with the attempt, and no lock is shared between runs.
    """
    for folder in ("refs", "objects/info", "info"):
        (git_dir / folder).mkdir(parents=True)
    algorithm = "" if len(base_sha) == _SHA1_DIGITS else "[extensions]\n\tobjectFormat = sha256\n"
    version = 1 if algorithm else 0
    (git_dir / "config").write_text(f"[core]\n\trepositoryFormatVersion = {version}\n\tbare = false\n{algorithm}")
    (git_dir / "objects/info/alternates").write_text(f"{mirror / 'objects'}\n")
    (git_dir / "HEAD").write_text(f"{base_sha}\n")
    (git_dir / "info/attributes").write_text(_AS_STORED)


async def _next_tick(git_dir: Path) -> None:
    """Return once the file system's clock has moved on since the checkout.

    Whatever is written from now on has another time than Git recorded, so no change can pass for the checkout's file.
    """
    written = (git_dir / "index").stat().st_mtime_ns
    for _ in range(_TICK_POLLS):
        if _is_later(git_dir / TICK, written):
            return
        await asyncio.sleep(_TICK_POLL.total_seconds())


def _is_later(probe: Path, than_nanoseconds: int) -> bool:
    probe.touch()
    return probe.stat().st_mtime_ns > than_nanoseconds
