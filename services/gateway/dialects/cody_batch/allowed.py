"""Which repositories may be worked on: globs over `owner/name`, as ALLOWED_REPOSITORIES has them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

_PART: Final = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9_.-]{1,100}"
_FULL_NAME: Final = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_HOST: Final = re.compile(r"(?:https?://)?(?:www\.)?github\.com/", re.IGNORECASE)
_GLOB_PART: Final = re.compile(r"[A-Za-z0-9_.*?\[\]!-]{1,200}", re.ASCII)
_GLOB_CHARACTERS: Final = frozenset("*?[")
_PARTS: Final = 2


def is_full_name(name: str) -> bool:
    """Whether ``name`` is `owner/name`, as GitHub has them."""
    return _FULL_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Pattern:
    """A glob for each side of the slash; case does not tell two names apart."""

    owner: str
    name: str

    def admits(self, full_name: str) -> bool:
        owner, _, name = full_name.casefold().partition("/")
        return fnmatchcase(owner, self.owner.casefold()) and fnmatchcase(name, self.name.casefold())

    @property
    def sole_owner(self) -> str:
        """The one owner that it names; empty where it names many."""
        return "" if _GLOB_CHARACTERS & set(self.owner) else self.owner

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Allowed:
    """``patterns``: none of them: no repository."""

    patterns: tuple[Pattern, ...]

    @classmethod
    def parse(cls, text: str) -> Allowed:
        """From patterns with commas between; `*` alone is every repository. Raises ``ValueError``."""
        words = [word.strip() for word in text.split(",")]
        return cls(tuple(_pattern(word) for word in words if word))

    @classmethod
    def everything(cls) -> Allowed:
        return cls((Pattern("*", "*"),))

    def admits(self, full_name: str) -> bool:
        return any(pattern.admits(full_name) for pattern in self.patterns)

    def by_owner(self) -> dict[str, list[str]]:
        """The patterns, by the owner to ask the forge for; those that name many owners are under the empty one."""
        found: dict[str, list[str]] = {}
        for pattern in self.patterns:
            found.setdefault(pattern.sole_owner, []).append(str(pattern))
        return found


def _pattern(word: str) -> Pattern:
    parts = ["*", "*"] if word == "*" else _HOST.sub("", word, count=1).split("/")
    if len(parts) != _PARTS or not all(_GLOB_PART.fullmatch(part) for part in parts):
        raise ValueError(f"{word[:100]!r} is no pattern: write `owner/name`, where `*` may stand for a part of either")
    return Pattern(*parts)
