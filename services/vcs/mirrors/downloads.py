"""Brings one mirror up to date, or makes it anew beside the old one. Callers hold the mirror's lock."""

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.runtime.telemetry import logger
from services.vcs.errors import (
    CloneFailedError,
    ForgeError,
    GitError,
    GitOutputTooLargeError,
    GitTimeoutError,
    VcsError,
)
from services.vcs.git.remotes import Listing, clone_failed, is_corruption, list_remote
from services.vcs.git.repositories import Repository
from services.vcs.git.runner import Git, Place, Progress
from services.vcs.mirrors.empty import EMPTY, make_empty
from services.vcs.mirrors.files import (
    clear_leftovers,
    default_branch,
    half_made,
    is_whole,
    remove_tree,
    replace_mirror,
    temporary_mirror,
)
from services.vcs.mirrors.objects import fetch_blobs, missing_blobs
from services.vcs.mirrors.options import PROMISED, MirrorOptions, address, promised_by
from services.vcs.mirrors.records import (
    MirrorRecord,
    forget_complete,
    is_complete,
    mark_complete,
    mark_fetched,
    read_record,
    write_record,
)
from services.vcs.mirrors.salvage import carry_over, kept_refs

log = logger("vcs.mirrors")

_QUICK: Final = timedelta(seconds=30)
# More packs than this make every look-up slower than rewriting the small ones once.
MAX_PACKS: Final = 50

_SHA256_DIGITS: Final = 64
_HEADS: Final = "+refs/heads/*:refs/remotes/origin/*"
_TAGS: Final = "+refs/tags/*:refs/tags/*"
_DEFAULT_BRANCH: Final = "refs/remotes/origin/HEAD"
_FAILURES: Final = (GitError, GitTimeoutError, GitOutputTooLargeError, ForgeError)
# What a remote says of what was asked for, and a disk of itself: no mirror is the better for being made anew.
_NOT_OURS: Final = re.compile(
    r"not our ref|couldn't find remote ref|unadvertised object|fsck error|no space left|file too large", re.IGNORECASE
)


class Downloads:
    def __init__(self, git: Git, options: MirrorOptions, *, timeout: timedelta) -> None:
        """``timeout``: of one fetch."""
        self._git = git
        self._options = options
        self._timeout = timeout

    def is_usable(self, git_dir: Path) -> bool:
        """Whether there is a mirror that holds what these options promise, as far as its files tell."""
        return is_whole(git_dir) and self._options.are_met_by(read_record(git_dir).options)

    async def holds(self, git_dir: Path, sha: str) -> bool:
        kind = await self._git.run("cat-file", "-t", sha, place=Place(git_dir), timeout=_QUICK, accept=(0, 128))
        return kind.strip() == b"commit"

    async def update(
        self, repository: Repository, git_dir: Path, sha: str, listing: Listing | None, tell: Progress
    ) -> None:
        """Fetch branches and tags, and ``sha`` (unless empty) where none of them holds it; mend what is broken.

        ``listing``: what the remote has just answered, if it was asked. Raises ``CloneFailedError``.
        """
        for folder in await asyncio.to_thread(half_made, git_dir):
            await remove_tree(folder)
        await asyncio.to_thread(clear_leftovers, git_dir)
        if repository == EMPTY or not self.is_usable(git_dir):
            await self.remake(repository, git_dir, sha, listing, tell)
            return
        listing = listing or await list_remote(self._git, repository, "")
        try:
            await self._download(Place(git_dir), repository, sha, listing, tell)
        except CloneFailedError as error:
            if not await self._is_damaged(git_dir, error):
                raise
            log.warning("a damaged mirror is made anew", repository=repository.key, error=error.git_message)
            await self.remake(repository, git_dir, sha, listing, tell)

    async def remake(
        self, repository: Repository, git_dir: Path, sha: str, listing: Listing | None, tell: Progress
    ) -> None:
        """Fetch into a folder beside the mirror's and put it in place as a whole, with all that runs had pinned."""
        if repository == EMPTY:
            await make_empty(self._git, git_dir)
            return
        listing = listing or await list_remote(self._git, repository, "")
        aside = fresh = temporary_mirror(git_dir)
        try:
            await self._init(Place(fresh), listing)
            await self._download(Place(fresh), repository, sha, listing, tell)
            await self._keep(repository, git_dir, fresh)
            await self._keep_content(repository, git_dir, fresh)
            await self._git.run("pack-refs", "--all", place=Place(fresh), timeout=_QUICK)
            aside = await asyncio.to_thread(replace_mirror, fresh, git_dir)
            # Once more: what was pinned until the old one was out of the way.
            await self._keep(repository, aside, git_dir)
        finally:
            await remove_tree(fresh)
            await remove_tree(aside)

    async def fill(self, repository: Repository, git_dir: Path, sha: str, paths: Sequence[str], tell: Progress) -> None:
        """Fetch what the mirror lacks of a commit's content; mend what is broken. Raises ``CloneFailedError``."""
        try:
            await self._fill(repository, Place(git_dir), sha, paths, tell)
        except CloneFailedError as error:
            if not is_corruption(error.git_message) and await self.holds(git_dir, sha):
                raise
            log.warning("a damaged mirror is made anew", repository=repository.key, error=error.git_message)
            await self.remake(repository, git_dir, sha, None, tell)
            await self._fill(repository, Place(git_dir), sha, paths, tell)

    async def _fill(self, repository: Repository, place: Place, sha: str, paths: Sequence[str], tell: Progress) -> None:
        try:
            if ids := await missing_blobs(self._git, place, sha, paths):
                await fetch_blobs(self._git, place, repository, ids, timeout=self._timeout, tell=tell)
                await self._consolidate(place)
        except _FAILURES as error:
            raise clone_failed(repository, error) from error

    async def point_default(self, git_dir: Path, branch: str) -> None:
        """Note which branch the remote's HEAD is on."""
        if branch and branch != default_branch(git_dir):
            target = f"refs/remotes/origin/{branch}"
            await self._git.run("symbolic-ref", _DEFAULT_BRANCH, target, place=Place(git_dir), timeout=_QUICK)

    async def _init(self, place: Place, listing: Listing) -> None:
        newer = any(len(sha) == _SHA256_DIGITS for sha in listing.shas.values())
        algorithm = "--object-format=sha256" if newer else "--object-format=sha1"
        arguments = ("init", "--quiet", "--bare", "--template=", algorithm, "--", str(place.git_dir))
        await self._git.run(*arguments, timeout=_QUICK)
        if self._options != MirrorOptions():
            # A push sends what the remote lacks. What it has must be asked for, where it moved on: guessed from what it
            # shows, the commits before the base would seem to be missing, and here they are not to be had.
            await self._git.run("config", "push.negotiate", "true", place=place, timeout=_QUICK)

    async def _download(self, place: Place, repository: Repository, sha: str, listing: Listing, tell: Progress) -> None:
        # Of a short history a tag is fetched when it is asked for: each would bring a tree that hardly anybody needs.
        every, depth = ((_HEADS,), self._options.depth) if self._options.depth else ((_HEADS, _TAGS), 0)
        try:
            await self._fetch(place, repository, ("--prune",), every, depth, tell)
            await self.point_default(place.git_dir, listing.default_branch)
            if sha and not await self.holds(place.git_dir, sha):
                # On no branch any more; many servers still hand it out by name.
                by_name = (f"+{sha}:refs/quarterdeck/fetched/{sha}",)
                await self._fetch(place, repository, (), by_name, min(depth, 1), tell)
            await self._consolidate(place)
        except _FAILURES as error:
            raise clone_failed(repository, error) from error
        options = self._options
        write_record(place.git_dir, MirrorRecord(repository.key, repository.url, options.filter, options.depth))
        mark_fetched(place.git_dir)

    async def _fetch(
        self,
        place: Place,
        repository: Repository,
        options: tuple[str, ...],
        refspecs: tuple[str, ...],
        depth: int,
        tell: Progress,
    ) -> None:
        """``depth``: commits of history; 0: all."""
        await self._git.run_against(
            repository,
            *self._options.fetch(repository.url),
            *((f"--depth={depth}",) if depth else ()),
            *options,
            "--progress",
            "--no-tags",
            "--no-write-fetch-head",
            "--end-of-options",
            address(repository.url) if self._options.filter else repository.url,
            *refspecs,
            place=place,
            variables=PROMISED,
            timeout=self._timeout,
            progress=tell,
        )

    async def _keep(self, repository: Repository, old: Path, fresh: Path) -> None:
        """Bring pins and rescued work into ``fresh``: from ``old`` what can be read there, the rest from the remote."""
        refs = await asyncio.to_thread(kept_refs, old)
        for name, sha in (await carry_over(self._git, old, Place(fresh), refs)).items():
            try:
                await self._fetch(
                    Place(fresh), repository, (), (f"+{sha}:{name}",), min(self._options.depth, 1), lambda *_: None
                )
            except VcsError as error:
                log.warning("a commit was lost with a damaged mirror", ref=name, sha=sha, error=str(error))

    async def _keep_content(self, repository: Repository, old: Path, fresh: Path) -> None:
        """Fetch again what was fetched for the pins of runs under way: their worktrees borrow it from here."""
        for sha in sorted(set((await asyncio.to_thread(kept_refs, fresh)).values())):
            if is_complete(fresh, sha, ()) or not is_complete(old, sha, ()):
                continue
            try:
                await self._fill(repository, Place(fresh), sha, (), lambda *_: None)
                mark_complete(fresh, sha, ())
            except VcsError as error:
                log.warning("content was lost with a damaged mirror", sha=sha, error=str(error))

    async def _is_damaged(self, git_dir: Path, error: CloneFailedError) -> bool:
        """Whether a fetch failed by what is in the mirror: the remote may also have cut it off or refused it."""
        if is_corruption(error.git_message):
            return True
        if error.retryable or _NOT_OURS.search(error.git_message):
            return False
        try:
            arguments = ("rev-list", "--objects", "--missing=allow-any", "--quiet", "--all")
            await self._git.run(*arguments, place=Place(git_dir), timeout=self._timeout)
        except GitError:
            return True
        except GitTimeoutError:
            return False
        return False

    async def _consolidate(self, place: Place) -> None:
        packs = place.git_dir / "objects" / "pack"
        if len(list(packs.glob("*.pack"))) <= MAX_PACKS:
            return
        if any(packs.glob("*.promisor")):
            # What a partial mirror has from its remote is packed apart from what was made here, all of it at once.
            arguments: tuple[str, ...] = (*promised_by("quarterdeck"), "repack", "-a", "-d", "-k", "-q")
        else:
            arguments = ("repack", "-d", "-q", "--geometric=2")
        await asyncio.to_thread(forget_complete, place.git_dir)
        await self._git.run(*arguments, place=place, variables=PROMISED, timeout=self._timeout)
