"""What is in a commit's tree, kept for those who ask again: which files, of which mode and content. A commit's never
changes.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.vcs.errors import GitOutputTooLargeError
from services.vcs.git.runner import Git, Place

MAX_LISTING_BYTES: Final = 8 * 1024 * 1024
"""About 80,000 files; what is larger is not kept."""
MAX_KEPT_BYTES: Final = 4 * MAX_LISTING_BYTES
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
        self._kept: OrderedDict[str, bytes | None] = OrderedDict()

    async def of(self, git: Git, place: Place, sha: str) -> Listing | None:
        """Of the commit ``sha``, which ``place`` has; None: too large. Raises ``GitError``, ``GitTimeoutError``."""
        if sha not in self._kept:
            self._kept[sha] = await _listed(git, place, sha)
        self._kept.move_to_end(sha)
        listed = self._kept[sha]
        while sum(len(each or b"") for each in self._kept.values()) > MAX_KEPT_BYTES:
            self._kept.popitem(last=False)
        return None if listed is None else Listing(listed)


async def _listed(git: Git, place: Place, sha: str) -> bytes | None:
    arguments = ("ls-tree", "-r", "-z", "--full-tree", sha)
    try:
        return await git.run(
            *arguments, place=place, timeout=_TIMEOUT, max_output_bytes=MAX_LISTING_BYTES, writes=False
        )
    except GitOutputTooLargeError:
        return None
