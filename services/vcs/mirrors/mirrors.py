"""One bare repository a remote: fetched once for all who ask, rebuilt where it is broken. Agents cannot write here."""

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import CloneFailedError, GitError, VcsError
from services.vcs.git.remotes import Listing, list_remote, pick
from services.vcs.git.repositories import Repository, checked_ref, checked_sha, is_sha, is_short_sha
from services.vcs.git.runner import Git, Place, Progress
from services.vcs.mirrors.downloads import Downloads
from services.vcs.mirrors.empty import EMPTY
from services.vcs.mirrors.files import clear_leftovers, default_branch, is_whole
from services.vcs.mirrors.folders import MirrorFolders
from services.vcs.mirrors.objects import paths_of_patch
from services.vcs.mirrors.options import MirrorOptions
from services.vcs.mirrors.records import MirrorFolder, disk_bytes, is_complete, mark_complete, mark_used
from services.vcs.mirrors.sharing import SharedWork

QUICK: Final = timedelta(seconds=30)
FETCH_TIMEOUT: Final = timedelta(minutes=30)


class UnknownMirrorError(VcsError):
    """No mirror of the repository is on this node."""


@dataclass(frozen=True, slots=True)
class ResolvedBase:
    """``branch``: the one that ``sha`` was taken from; empty for a tag or SHA."""

    sha: str
    branch: str


@dataclass(frozen=True, slots=True)
class Synced:
    """The remote's default branch and the commit it is at, both empty where it has none; what the mirror takes."""

    default_branch: str
    head_sha: str
    bytes: int
    path: Path
    """The mirror's folder."""


class Mirrors:
    def __init__(
        self,
        root: Path,
        git: Git,
        *,
        options: MirrorOptions = MirrorOptions(),  # noqa: B008  frozen
        fetch_timeout: timedelta = FETCH_TIMEOUT,
        always_asks: bool = False,
    ) -> None:
        """``root``: the data folder of this vcs; mirrors live in ``<root>/mirrors``. ``options``: of all of them.
        ``always_asks``: nothing is given out before its remote has answered, whatever is here already.
        """
        self._root = root
        self._git = git
        self._options = options
        self._folders = MirrorFolders(root / "mirrors", timeout=fetch_timeout)
        self._fetch_timeout = fetch_timeout
        self._listings: SharedWork[Listing] = SharedWork()
        self._fetches: SharedWork[None] = SharedWork()
        self._syncs: SharedWork[Synced] = SharedWork()
        self._always_asks = always_asks

    def seen_through(self, git: Git) -> "Mirrors":
        """The same mirrors for somebody whose credentials ``git`` shows.

        Nothing that others ask or fetch is joined, nor do they join this; and before anything of a mirror is given out
        its remote has to answer these credentials.
        """
        return Mirrors(self._root, git, options=self._options, fetch_timeout=self._fetch_timeout, always_asks=True)

    def place(self, repository: Repository) -> Place:
        return Place(self._git_dir(repository))

    async def fetch(
        self,
        repository: Repository,
        *,
        ref: str = "",
        sha: str = "",
        pin: str = "",
        asks: bool = False,
        progress: Progress | None = None,
    ) -> ResolvedBase:
        """Have the commit in the mirror and say which it is.

        ``sha``: exactly this commit, one that an earlier call resolved; the remote is asked only if it is not here, or
        in any case (``asks``): for who may not have been let in by it yet.
        Otherwise the remote says what ``ref`` is now (empty: its default branch), which also proves that the caller's
        credentials reach it. ``pin``: the run for which it is kept, as by ``pin`` (and for less). Where the mirror is
        partial, ``complete`` brings the content. Raises ``CloneFailedError``, ``RefRefusedError``, ``BusyError``.
        """
        if ref:
            checked_ref(ref)
        if sha:
            checked_sha(sha)
        async with self.using(repository):
            if sha and (asks or self._always_asks) and repository != EMPTY:
                await self._list(repository, "")
            base = await self._resolve(repository, ref, sha, pin, progress)
            mark_used(self._git_dir(repository))
        return base

    async def complete(
        self,
        repository: Repository,
        sha: str,
        *,
        paths: Sequence[str] = (),
        patch: bytes = b"",
        progress: Progress | None = None,
    ) -> None:
        """Have the content of a fetched commit, too: all of it, or what ``paths`` and the files of ``patch`` need.

        A path needs what is beneath it and the files beside it, on the way down from the root. Nothing is to be done
        where the mirrors are not partial. Raises ``CloneFailedError``, ``BusyError``, ``GitError`` (no such patch).
        """
        if not self._options.filter or repository == EMPTY:
            return
        changed = await paths_of_patch(self._git, patch) if patch else ()
        wanted = tuple(sorted({*paths, *changed}))
        if (patch and not wanted) or is_complete(self._git_dir(repository), sha, wanted):
            return
        key = (repository.key, sha, wanted)
        await self._fetches.run(key, lambda tell: self._complete(repository, sha, wanted, tell), progress)

    async def sync(self, repository: Repository, progress: Progress | None = None) -> Synced:
        """Bring the mirror up to date; it goes on where the caller goes away, and who asks meanwhile joins it.

        Raises ``UnknownMirrorError`` where there is none, ``CloneFailedError``, ``BusyError``.
        """
        if not self._syncs.is_under_way(repository.key) and not self._git_dir(repository).exists():
            raise UnknownMirrorError(f"this node has no mirror of {repository.url}; clone it first")
        return await self.clone(repository, progress)

    async def clone(self, repository: Repository, progress: Progress | None = None) -> Synced:
        """``sync``, where there is no mirror by making one. Raises ``CloneFailedError``, ``BusyError``."""
        return await self._syncs.run(repository.key, lambda tell: self._sync(repository, tell), progress, lasting=True)

    async def rebuild(self, repository: Repository) -> None:
        """Make a mirror anew whose objects turned out to be damaged; what runs had pinned comes with it."""
        await self._fetches.run((repository.key, "rebuild"), lambda tell: self._rebuild(repository, tell))

    async def pin(self, repository: Repository, run_id: str, sha: str) -> None:
        """Keep ``sha`` in the mirror for as long as the run may need it, whatever becomes of the remote's branches.

        Raises ``GitError``, where the mirror does not hold it for one.
        """
        place = self.place(repository)
        await self._git.run("update-ref", _pinned(run_id), sha, place=place, timeout=QUICK)
        mark_used(place.git_dir)

    async def unpin(self, folder: str, run_id: str) -> None:
        place = Place(self._folders.git_dir(folder))
        if is_whole(place.git_dir):
            await self._git.run("update-ref", "-d", _pinned(run_id), place=place, timeout=QUICK)

    def lock(self, folder: str) -> AbstractAsyncContextManager[None]:
        """Held by whoever fetches into a mirror, replaces or removes it; ``remove`` takes it itself.

        Pins and rescued work may be written without it. Raises ``BusyError``.
        """
        return self._folders.lock(folder)

    def using(self, repository: Repository) -> AbstractAsyncContextManager[None]:
        """While it is held the mirror is not removed, pinned or not; fetches go on. Raises ``BusyError``."""
        return self._folders.using(repository.folder)

    async def usages(self) -> list[MirrorFolder]:
        """What every mirror of this node takes, by the names of their folders."""
        return await self._folders.usages()

    async def remove(self, folder: str, *, unused_since: float | None = None) -> bool:
        """Remove a mirror that nobody needs; whether it is gone. Nothing is waited for.

        It stays where it holds a pin or rescued work, is being fetched or used, or was used after ``unused_since``
        (seconds since the epoch) or in the last ``PIN_GRACE``. The empty one always does.
        """
        return folder != EMPTY.folder and await self._folders.remove(folder, unused_since)

    async def sweep(self) -> None:
        """Remove what a killed process was making or removing; for the start of the service."""
        await self._folders.sweep()

    async def close(self) -> None:
        """End what goes on without callers; for the end of the service."""
        await self._syncs.close()
        await self._fetches.close()

    @property
    def _downloads(self) -> Downloads:
        return Downloads(self._git, self._options, timeout=self._fetch_timeout)

    def _git_dir(self, repository: Repository) -> Path:
        return self._folders.git_dir(repository.folder)

    async def _list(self, repository: Repository, ref: str) -> Listing:
        return await self._listings.run((repository.key, ref), lambda _: list_remote(self._git, repository, ref))

    async def _resolve(
        self, repository: Repository, ref: str, sha: str, pin: str, progress: Progress | None
    ) -> ResolvedBase:
        if sha:
            await self._obtain(repository, sha, pin, None, progress)
            return ResolvedBase(sha, await self._known_branch(repository, ref))
        listing = await self._list(repository, ref)
        found = pick(listing, repository, ref)
        if found is None:
            found = (ref if is_sha(ref) else await self._by_prefix(repository, ref, progress)), ""
            await self._obtain(repository, found[0], pin, None, progress)
        else:
            await self._obtain(repository, found[0], pin, listing, progress)
        await self._note_default(repository, listing.default_branch)
        return ResolvedBase(*found)

    async def _note_default(self, repository: Repository, branch: str) -> None:
        """Note which branch the remote's HEAD is on now, for those who will not ask the remote."""
        git_dir = self._git_dir(repository)
        if branch and branch != default_branch(git_dir):
            # Noted at the next time if somebody else is writing it.
            with contextlib.suppress(GitError):
                key = (repository.key, "default", branch)
                await self._fetches.run(key, lambda _: self._downloads.point_default(git_dir, branch))

    async def _obtain(
        self, repository: Repository, sha: str, pin: str, listing: Listing | None, progress: Progress | None
    ) -> None:
        """Fetch until the commit is here: a fetch that was joined may have begun before the commit was pushed.

        ``listing``: in which the remote has just said that it has it, so a mirror that cannot get it is damaged.
        """
        for _ in range(2):
            if await self._has(repository, sha, pin):
                return
            await self._fetches.run(repository.key, lambda tell: self._update(repository, sha, listing, tell), progress)
        if listing is not None and not await self._has(repository, sha, pin):
            await self.rebuild(repository)
        if not await self._has(repository, sha, pin):
            raise CloneFailedError(f"commit {sha} is not in {repository.url} (any more); start from another base")

    async def _has(self, repository: Repository, sha: str, pin: str) -> bool:
        """Whether the commit is here, and pinned if it is to be: one command does both where all is well."""
        git_dir = self._git_dir(repository)
        if not self._downloads.is_usable(git_dir):
            return False
        if not pin:
            return await self._downloads.holds(git_dir, sha)
        try:
            await self.pin(repository, pin, sha)
        except GitError:
            if not await self._downloads.holds(git_dir, sha):
                return False
            await self._pin_again(repository, sha, pin)
        return True

    async def _pin_again(self, repository: Repository, sha: str, pin: str) -> None:
        """Pin a commit that is here, past the lock that a killed process left."""
        async with self.lock(repository.folder):
            await asyncio.to_thread(clear_leftovers, self._git_dir(repository))
        try:
            await self.pin(repository, pin, sha)
        except GitError as error:
            words = f"commit {sha} of {repository.url} could not be pinned for run {pin}; it will be tried again"
            raise CloneFailedError(words, git_message=error.git_message, retryable=True) from error

    async def _by_prefix(self, repository: Repository, ref: str, progress: Progress | None) -> str:
        """An abbreviated SHA in full; the remote has just answered that it is no name."""
        place = self.place(repository)
        arguments = ("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        for fetched in (False, True):
            if fetched:
                await self._fetches.run(repository.key, lambda tell: self._update(repository, "", None, tell), progress)
            if is_short_sha(ref) and is_whole(place.git_dir):
                output = await self._git.run(*arguments, place=place, timeout=QUICK, accept=(0, 1, 128))
                if is_sha(output.decode().strip()):
                    return output.decode().strip()
        raise CloneFailedError(f"{repository.url} has no branch, tag or commit {ref}; name one that exists")

    async def _known_branch(self, repository: Repository, ref: str) -> str:
        """The branch that ``ref`` names by what the mirror knows, without asking the remote."""
        place = self.place(repository)
        if not ref:
            return default_branch(place.git_dir)
        name = f"refs/remotes/origin/{ref.removeprefix('refs/heads/')}"
        arguments = ("rev-parse", "--verify", "--quiet", "--symbolic-full-name", name)
        output = await self._git.run(*arguments, place=place, timeout=QUICK, accept=(0, 1, 128))
        return output.decode("utf-8", "replace").strip().removeprefix("refs/remotes/origin/")

    async def _update(self, repository: Repository, sha: str, listing: Listing | None, tell: Progress) -> None:
        git_dir = self._git_dir(repository)
        async with self.lock(repository.folder):
            # Another process may have fetched it while this one waited.
            if not (sha and await self._has(repository, sha, "")):
                await self._downloads.update(repository, git_dir, sha, listing, tell)

    async def _rebuild(self, repository: Repository, tell: Progress) -> None:
        async with self.lock(repository.folder):
            await self._downloads.remake(repository, self._git_dir(repository), "", None, tell)

    async def _complete(self, repository: Repository, sha: str, paths: Sequence[str], tell: Progress) -> None:
        git_dir = self._git_dir(repository)
        async with self.using(repository), self.lock(repository.folder):
            if not is_complete(git_dir, sha, paths):
                await self._downloads.fill(repository, git_dir, sha, paths, tell)
                mark_complete(git_dir, sha, paths)
            mark_used(git_dir)

    async def _sync(self, repository: Repository, tell: Progress) -> Synced:
        async with self.using(repository):
            listing = await self._list(repository, "")
            # One that is under way began before we asked: it may miss what is new.
            for _ in range(2 if self._fetches.is_under_way(repository.key) else 1):
                await self._fetches.run(repository.key, lambda each: self._update(repository, "", listing, each), tell)
            path = self._git_dir(repository)
            taken = await asyncio.to_thread(disk_bytes, path)
        return Synced(listing.default_branch, listing.shas.get("HEAD", ""), taken, path)


def _pinned(run_id: str) -> str:
    return f"refs/quarterdeck/base/{run_id}"
