"""Whether a path is one that a glob names: a second look, for tools that search more than they were asked to."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

_BRACES = re.compile(r"\{([^{}]*)\}")
_ANY = "**"


def matches(glob: str, path: str) -> bool:
    """Match as ripgrep does: without ``/`` names in any directory, with one from the root; ``**`` is any directories.

    A glob without wildcards also names all that is in the directory of that name.
    """
    if braces := _BRACES.search(glob):
        before, after = glob[: braces.start()], glob[braces.end() :]
        return any(matches(before + choice + after, path) for choice in braces[1].split(","))
    names = [name for name in glob.split("/") if name not in {"", "."}]
    pattern = names if "/" in glob.rstrip("/") else [_ANY, *names]
    if not set("*?[") & set(glob):
        pattern = [*pattern, _ANY]
    return _names_match(tuple(pattern), tuple(path.split("/")))


def _names_match(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == _ANY:
        return any(_names_match(pattern[1:], names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _names_match(pattern[1:], names[1:])
