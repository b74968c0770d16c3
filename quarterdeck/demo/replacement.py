"""What the demo asks for: a phrase that stands in several files of every repository, and what is to become of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from quarterdeck.demo.git import blobs, tree
from quarterdeck.demo.origins import Origin

LEAST_FILES = 3
MOST_FILES = 40
MOST_BYTES = 256 * 1024
"""Of a file that the agent's tools read and edit."""


@dataclass(frozen=True)
class Replacement:
    """Every ``old`` becomes ``new``."""

    old: str
    new: str

    @property
    def prompt(self) -> str:
        return f"Replace all occurrences of '{self.old}' with '{self.new}'."

    def applied(self, content: bytes) -> bytes:
        return content.replace(self.old.encode(), self.new.encode())


CANDIDATES = (
    Replacement("http://", "https://"),
    Replacement("e.g.", "for example"),
    Replacement("whether", "if"),
    Replacement("must be", "has to be"),
    Replacement("should be", "ought to be"),
    Replacement("default", "standard"),
    Replacement("return None", "return"),
)


class NoReplacementError(Exception):
    """No candidate suits all of the repositories."""


def choose(origins: Iterable[Origin]) -> Replacement:
    """The first candidate that stands in 3 to 40 files of each, all of them files that can be edited."""
    contents = [_contents(origin) for origin in origins]
    for candidate in CANDIDATES:
        if all(_suits(candidate, files) for files in contents):
            return candidate
    tried = ", ".join(repr(candidate.old) for candidate in CANDIDATES)
    raise NoReplacementError(
        f"none of {tried} stands in {LEAST_FILES} to {MOST_FILES} files of each repository: "
        "add a phrase to CANDIDATES in quarterdeck/demo/replacement.py"
    )


def is_text(content: bytes) -> bool:
    """Whether a file's bytes are text, as Git and ripgrep see it."""
    return b"\0" not in content


def _contents(origin: Origin) -> dict[str, bytes]:
    entries = {path: entry for path, entry in tree(origin.path, origin.base).items() if entry.is_regular}
    found = blobs(origin.path, (entry.blob for entry in entries.values()))
    return {path: found[entry.blob] for path, entry in entries.items()}


def _suits(candidate: Replacement, files: dict[str, bytes]) -> bool:
    old = candidate.old.encode()
    holding = {path: content for path, content in files.items() if old in content and is_text(content)}
    enough = LEAST_FILES <= len(holding) <= MOST_FILES
    return enough and all(_is_editable(path, content) for path, content in holding.items())


def _is_editable(path: str, content: bytes) -> bool:
    """Whether a model that searches for text finds this file and can write it back: not hidden, UTF-8, not large."""
    hidden = any(part.startswith(".") for part in PurePosixPath(path).parts)
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return not hidden and len(content) <= MOST_BYTES
