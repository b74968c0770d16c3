"""What is in a commit's tree, kept for those who ask again: which files, of which mode and content. A commit's never
changes.
"""

import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.vcs.errors import GitOutputTooLargeError
from services.vcs.git.runner import Git, Place
from services.vcs.mirrors.sharing import SharedWork

MAX_LISTING_BYTES: Final = 8 * 1024 * 1024
"""About 80,000 files; what is larger is not kept."""
MAX_KEPT_BYTES: Final = 4 * MAX_LISTING_BYTES
_NOT_AGAIN_SECONDS: Final = 600.0
"""After one had to make room: where there are more than are kept, to list them by turns would cost more than it saves.
"""
_MOST_GONE: Final = 1_000
_TIMEOUT: Final = timedelta(minutes=1)
_ENTRY: Final = re.compile(rb"(?:\A|\0)([0-7]{6}) blob ([0-9a-f]{40})\Z")
_HEAD_BYTES: Final = len(b"_100644 blob ") + 40


@dataclass(frozen=True, slots=True)
class Entry:
    """``mode``: six octal digits. ``blob``: the id of the content."""

    mode: str
    blob: str


class Listing:
    def __init__(self, listed: bytes) -> None:
        """``listed``: of `git ls-tree -r -z`. It stays as it is: taken apart it would be ten times as large."""
        self._listed = listed

    def entry(self, path: bytes) -> Entry | None:
        """The file or link at ``path``; None where there is none, or it is of another kind."""
        sought = b"\t" + path + b"\0"
        at = self._listed.find(sought)
        while at >= 0:
            # The name of another file may end so, too: a name may hold tabs.
            if head := _ENTRY.search(self._listed[max(0, at - _HEAD_BYTES) : at]):
                return Entry(head[1].decode("ascii"), head[2].decode("ascii"))
            at = self._listed.find(sought, at + 1)
        return None


class Listings:
    """Those that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._gone: OrderedDict[str, float] = OrderedDict()
        """Until when those that are not kept are not listed again; monotonic seconds."""
        self._under_way = SharedWork[bytes | None]()

    async def of(self, git: Git, place: Place, sha: str) -> Listing | None:
        """Of the commit ``sha``, which ``place`` has; None: it is too large, or there are too many.

        Raises ``GitError``, ``GitTimeoutError``.
        """
        listed = self._kept.get(sha)
        if listed is None:
            if self._gone.get(sha, 0.0) > time.monotonic():
                return None
            listed = await self._under_way.run(sha, lambda _: _listed(git, place, sha))
            if listed is None:
                self._let_go(sha)
                return None
            self._kept[sha] = listed
        self._kept.move_to_end(sha)
        while sum(map(len, self._kept.values())) > MAX_KEPT_BYTES:
            oldest, _ = self._kept.popitem(last=False)
            self._let_go(oldest)
        return Listing(listed)

    def _let_go(self, sha: str) -> None:
        self._gone[sha] = time.monotonic() + _NOT_AGAIN_SECONDS
        self._gone.move_to_end(sha)
        if len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)


async def _listed(git: Git, place: Place, sha: str) -> bytes | None:
    arguments = ("ls-tree", "-r", "-z", "--full-tree", sha)
    try:
        return await git.run(
            *arguments, place=place, timeout=_TIMEOUT, max_output_bytes=MAX_LISTING_BYTES, writes=False
        )
    except GitOutputTooLargeError:
        return None
