"""One bare repository a remote: fetched once for all who ask, rebuilt where it is broken. Agents cannot write here."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError
from services.vcs.git import Git, Place, Progress
from services.vcs.mirror_files import clear_leftovers, is_whole, remove_tree, replace_mirror, temporary_mirror
from services.vcs.remotes import Listing, clone_failed, is_corruption, list_remote, pick
from services.vcs.repositories import Repository, checked_ref, checked_sha, is_sha, is_short_sha
from services.vcs.sharing import SharedWork, file_lock

FETCH_TIMEOUT: Final = timedelta(minutes=30)
QUICK: Final = timedelta(seconds=30)
# More packs than this make every look-up slower than rewriting the small ones once.
MAX_PACKS: Final = 50

_HEADS: Final = "+refs/heads/*:refs/remotes/origin/*"
_TAGS: Final = "+refs/tags/*:refs/tags/*"
_DEFAULT_BRANCH: Final = "refs/remotes/origin/HEAD"


@dataclass(frozen=True, slots=True)
class ResolvedBase:
    """``branch``: the one that ``sha`` was taken from; empty for a tag or SHA."""

    sha: str
    branch: str


class Mirrors:
    def __init__(self, root: Path, git: Git, *, fetch_timeout: timedelta = FETCH_TIMEOUT) -> None:
        """``root``: the data folder of this vcs; mirrors live in ``<root>/mirrors``."""
        self._folder = root / "mirrors"
        self._git = git
        self._fetch_timeout = fetch_timeout
        self._listings: SharedWork[Listing] = SharedWork()
        self._fetches: SharedWork[None] = SharedWork()

    def place(self, repository: Repository) -> Place:
        return Place(self._folder / f"{repository.folder}.git")

    async def fetch(
        self, repository: Repository, *, ref: str = "", sha: str = "", progress: Progress | None = None
    ) -> ResolvedBase:
        """Have the commit in the mirror and say which it is.

        ``sha``: exactly this commit, one that an earlier call resolved; the remote is asked only if it is not here.
        Otherwise the remote says what ``ref`` is now (empty: its default branch), which also proves that the caller's
        credentials reach it. Raises ``CloneFailedError``, ``RefRefusedError``, ``BusyError``.
        """
        if ref:
            checked_ref(ref)
        if sha:
            await self._obtain(repository, checked_sha(sha), progress)
            return ResolvedBase(sha, await self._known_branch(repository, ref))
        listing = await self._listings.run((repository.key, ref), lambda _: self._list(repository, ref))
        found = pick(listing, repository, ref)
        if found is None:
            return ResolvedBase(await self._by_prefix(repository, ref, progress), "")
        await self._obtain(repository, found[0], progress, listed=True)
        return ResolvedBase(*found)

    async def rebuild(self, repository: Repository) -> None:
        """Make a mirror anew whose objects turned out to be damaged."""
        await self._fetches.run((repository.key, "rebuild"), lambda tell: self._rebuild(repository, tell))

    async def pin(self, repository: Repository, run_id: str, sha: str) -> None:
        """Keep ``sha`` in the mirror for as long as the run may need it, whatever becomes of the remote's branches."""
        await self._git.run(
            "update-ref", f"refs/quarterdeck/base/{run_id}", sha, place=self.place(repository), timeout=QUICK
        )

    async def unpin(self, folder: str, run_id: str) -> None:
        place = Place(self._folder / f"{folder}.git")
        if is_whole(place.git_dir):
            await self._git.run("update-ref", "-d", f"refs/quarterdeck/base/{run_id}", place=place, timeout=QUICK)

    async def _list(self, repository: Repository, ref: str) -> Listing:
        return await list_remote(self._git, repository, ref)

    async def _obtain(
        self, repository: Repository, sha: str, progress: Progress | None, *, listed: bool = False
    ) -> None:
        """Fetch until the commit is here: a fetch that was joined may have begun before the commit was pushed.

        ``listed``: the remote has just said that it has it, so a mirror that cannot get it is damaged.
        """
        for _ in range(2):
            if await self._has(repository, sha):
                return
            await self._fetches.run(repository.key, lambda tell: self._update(repository, sha, tell), progress)
        if listed and not await self._has(repository, sha):
            await self.rebuild(repository)
        if not await self._has(repository, sha):
            raise CloneFailedError(f"commit {sha} is not in {repository.url} (any more); start from another base")

    async def _by_prefix(self, repository: Repository, ref: str, progress: Progress | None) -> str:
        """A SHA that no branch or tag is at, full or abbreviated; the remote has just answered that it is no name."""
        if is_sha(ref):
            await self._obtain(repository, ref, progress)
            return ref
        for fetched in (False, True):
            if fetched:
                await self._fetches.run(repository.key, lambda tell: self._update(repository, "", tell), progress)
            arguments = ("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
            if is_short_sha(ref) and is_whole(self.place(repository).git_dir):
                output = await self._git.run(
                    *arguments, place=self.place(repository), timeout=QUICK, accept=(0, 1, 128)
                )
                if is_sha(output.decode().strip()):
                    return output.decode().strip()
        raise CloneFailedError(f"{repository.url} has no branch, tag or commit {ref}; name one that exists")

    async def _has(self, repository: Repository, sha: str) -> bool:
        place = self.place(repository)
        return is_whole(place.git_dir) and await self._holds(place, sha)

    async def _holds(self, place: Place, sha: str) -> bool:
        kind = await self._git.run("cat-file", "-t", sha, place=place, timeout=QUICK, accept=(0, 128))
        return kind.strip() == b"commit"

    async def _known_branch(self, repository: Repository, ref: str) -> str:
        name = f"refs/remotes/origin/{ref.removeprefix('refs/heads/')}" if ref else _DEFAULT_BRANCH
        arguments = ("rev-parse", "--verify", "--quiet", "--symbolic-full-name", name)
        output = await self._git.run(*arguments, place=self.place(repository), timeout=QUICK, accept=(0, 1, 128))
        return output.decode("utf-8", "replace").strip().removeprefix("refs/remotes/origin/")

    async def _update(self, repository: Repository, sha: str, tell: Progress) -> None:
        git_dir = self.place(repository).git_dir
        async with file_lock(git_dir.with_suffix(".lock"), timeout=self._fetch_timeout):
            if sha and await self._has(repository, sha):
                return
            await asyncio.to_thread(clear_leftovers, git_dir)
            if not is_whole(git_dir):
                await self._make(repository, sha, tell)
                return
            try:
                await self._download(self.place(repository), repository, sha, tell)
            except CloneFailedError as error:
                if not is_corruption(error.git_message):
                    raise
                await self._make(repository, sha, tell)

    async def _rebuild(self, repository: Repository, tell: Progress) -> None:
        git_dir = self.place(repository).git_dir
        async with file_lock(git_dir.with_suffix(".lock"), timeout=self._fetch_timeout):
            await self._make(repository, "", tell)

    async def _make(self, repository: Repository, sha: str, tell: Progress) -> None:
        """Fetch into a folder beside the mirror's and put it in place as a whole."""
        git_dir = self.place(repository).git_dir
        fresh = temporary_mirror(git_dir)
        try:
            await self._git.run("init", "--quiet", "--bare", "--template=", "--", str(fresh), timeout=QUICK)
            await self._download(Place(fresh), repository, sha, tell)
            await self._git.run("pack-refs", "--all", place=Place(fresh), timeout=QUICK)
            await asyncio.to_thread(replace_mirror, fresh, git_dir)
        finally:
            await remove_tree(fresh)

    async def _download(self, place: Place, repository: Repository, sha: str, tell: Progress) -> None:
        listing = await self._list(repository, "")
        try:
            await self._fetch_refs(place, repository, (_HEADS, _TAGS), tell)
            if listing.default_branch:
                target = f"refs/remotes/origin/{listing.default_branch}"
                await self._git.run("symbolic-ref", _DEFAULT_BRANCH, target, place=place, timeout=QUICK)
            kind = (
                await self._git.run("cat-file", "-t", sha, place=place, timeout=QUICK, accept=(0, 128)) if sha else b"-"
            )
            if not kind:
                # On no branch any more; many servers still hand it out by name.
                await self._fetch_refs(place, repository, (f"+{sha}:refs/quarterdeck/fetched/{sha}",), tell)
            if len(list((place.git_dir / "objects" / "pack").glob("*.pack"))) > MAX_PACKS:
                arguments = ("repack", "-d", "-q", "--geometric=2")
                await self._git.run(*arguments, place=place, timeout=self._fetch_timeout)
        except (GitError, GitTimeoutError) as error:
            raise clone_failed(repository, error) from error

    async def _fetch_refs(
        self, place: Place, repository: Repository, refspecs: tuple[str, ...], tell: Progress
    ) -> None:
        await self._git.run(
            "fetch",
            "--progress",
            "--prune",
            "--no-tags",
            "--no-write-fetch-head",
            "--end-of-options",
            repository.url,
            *refspecs,
            place=place,
            timeout=self._fetch_timeout,
            progress=tell,
        )
