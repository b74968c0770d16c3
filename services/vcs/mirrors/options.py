"""What mirrors leave at the remote until it is needed, and how Git is told to. Pure."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

_FILTER: Final = re.compile(r"(?:blob:none|blob:limit=\d+[kmg]?)?")

# What Git is told of a remote that may be asked later for what was left there. It stands in no configuration file:
# a command that meets a gap fails at once, in a mirror and in all that borrow from it, and none fetches by itself.
PROMISED: Final = {"QUARTERDECK_PROMISOR": "true", "QUARTERDECK_FILTER": "blob:none", "QUARTERDECK_NEGOTIATION": "noop"}


@dataclass(frozen=True, slots=True)
class MirrorOptions:
    """``filter``: empty (all content), ``blob:none`` or ``blob:limit=<n>[kmg]``. ``depth``: commits a branch; 0: all.

    Raises ``ValueError`` for anything else.
    """

    filter: str = ""
    depth: int = 0

    def __post_init__(self) -> None:
        if not _FILTER.fullmatch(self.filter):
            raise ValueError(f"{self.filter!r} is no filter for mirrors; write blob:none, blob:limit=1m or nothing")
        if self.depth < 0:
            raise ValueError(f"{self.depth} is no depth for mirrors; write a number of commits, or 0 for all of them")

    def are_met_by(self, made_with: "MirrorOptions") -> bool:
        """Whether a mirror made with others holds all that one made with these would."""
        same_content = made_with.filter in {"", self.filter}
        return same_content and made_with.depth in {0, self.depth}

    def fetch(self, url: str) -> tuple[str, ...]:
        """The beginning of a fetch of commits from ``address(url)``; its environment needs ``PROMISED``."""
        if not self.filter:
            return ("fetch",)
        return (*promised_by(address(url)), "fetch", f"--filter={self.filter}")


def address(url: str) -> str:
    """``url`` as a name that Git takes for a remote's, too: which none is that begins with a slash."""
    return f"file://{quote(url)}" if url.startswith("/") else url


def promised_by(remote: str) -> tuple[str, ...]:
    """Options of Git itself, before the command, by which objects may be missing that ``remote`` has."""
    return (
        f"--config-env=remote.{remote}.promisor=QUARTERDECK_PROMISOR",
        f"--config-env=remote.{remote}.partialCloneFilter=QUARTERDECK_FILTER",
    )
