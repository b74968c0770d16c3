"""Globs over paths, in linear time whatever the pattern is (a regular expression could take for ever)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from services.agent.tools.calls import ToolError
from services.agent.workspace import Parts

_BRACES = re.compile(r"\{([^{}]*)\}")
_MAX_ALTERNATIVES = 64
_ANY = "**"
# What means the same to ripgrep's ignore rules and to fnmatch.
_PORTABLE = re.compile(r"[\w.*?-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Glob:
    """``*`` and ``?`` within a name, ``**`` for any directories, ``[…]``, ``{a,b}``; ``!`` before it turns it round.

    Without ``/`` it matches names in any directory, with one it is taken from the root. A name without wildcards
    also stands for all that is in the directory of that name.
    """

    alternatives: tuple[Parts, ...]
    excludes: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ``ToolError``: nothing to match, or too many alternatives in braces."""
        excludes = text.startswith("!")
        plain = text.removeprefix("!").removeprefix("./")
        if not plain.strip("/"):
            raise ToolError(f"the glob {text!r} matches nothing: give one such as '*.py' or 'src/**/*.ts'")
        return cls(tuple(_components(choice) for choice in _expanded(plain)), excludes)

    def accepts(self, path: Parts) -> bool:
        return any(_matches(pattern, path) for pattern in self.alternatives) is not self.excludes

    def rules(self) -> list[str]:
        """Gitignore rules that let through at least all that this accepts; none where that is not sure."""
        names = [name for pattern in self.alternatives for name in pattern]
        if self.excludes or not all(_PORTABLE.fullmatch(name) for name in names):
            return []
        return ["*", "!*/", *(rule for pattern in self.alternatives for rule in _let_through(pattern))]


def _let_through(pattern: Parts) -> Iterable[str]:
    loose = [_loose(name) for name in pattern]
    yield "!/" + "/".join(loose)
    # For Git a final "**" is something in the directory; here it may be nothing.
    while loose and loose[-1] == _ANY:
        loose.pop()
    if loose:
        yield "!/" + "/".join(loose)


def _loose(name: str) -> str:
    # ripgrep's "?" is one byte, not one character; and "**" within a name is not ours to rely on.
    return name if name == _ANY else re.sub(r"[*?]+", "*", name)


def _expanded(text: str) -> list[str]:
    choices = [text]
    while any(braces := [_BRACES.search(choice) for choice in choices]):
        choices = [
            spelled
            for choice, found in zip(choices, braces, strict=True)
            for spelled in (_spelled(choice, found) if found else [choice])
        ]
        if len(choices) > _MAX_ALTERNATIVES:
            raise ToolError(f"the glob's braces have over {_MAX_ALTERNATIVES} alternatives: use fewer, or a plain '*'")
    return choices


def _spelled(text: str, braces: re.Match[str]) -> Iterable[str]:
    before, after = text[: braces.start()], text[braces.end() :]
    return (before + choice + after for choice in braces.group(1).split(","))


def _components(text: str) -> Parts:
    names = tuple(name for name in text.split("/") if name not in {"", "."})
    if "/" not in text.rstrip("/"):
        names = (_ANY, *names)
    literal = not names or not set("*?[") & set(names[-1])
    return (*names, _ANY) if literal else names


def _matches(pattern: Parts, path: Parts) -> bool:
    """Walks all positions in ``pattern`` that ``path`` can have reached, at once."""
    reached = _past_any({0}, pattern)
    for name in path:
        stepped = {at for at in reached if at < len(pattern) and pattern[at] == _ANY}
        stepped |= {at + 1 for at in reached - stepped if at < len(pattern) and fnmatchcase(name, pattern[at])}
        reached = _past_any(stepped, pattern)
    return len(pattern) in reached


def _past_any(reached: set[int], pattern: Parts) -> set[int]:
    """``**`` may stand for no directory at all."""
    closure = set(reached)
    for at in sorted(reached):
        following = at
        while following < len(pattern) and pattern[following] == _ANY:
            following += 1
            closure.add(following)
    return closure
