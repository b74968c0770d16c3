"""Reads "replace all occurrences of 'A' with 'B'" out of a prompt. Pure; knows nothing of tools or HTTP.

Where a prompt restricts a replacement in words this cannot read, it is refused: doing less is safer than doing more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from quarterdeck.offline_model.globs import matches
from quarterdeck.offline_model.quoting import QUOTED, unquote
from quarterdeck.offline_model.scopes import UnclearScopeError, read_scope

UNDERSTOOD_FORM = "replace all occurrences of 'A' with 'B' in *.py files"

_VERB = re.compile(r"\b(?:replace|change)\b", re.IGNORECASE)
_FILLER = re.compile(
    r"(?:[\s:*•-]|\b(?:all|every|each|any|the|of|occurrences?|instances?|appearances?|mentions?|uses?"
    r"|strings?|texts?|words?|names?|identifiers?|literals?|phrases?|terms?|following)\b)*",
    re.IGNORECASE,
)
_CONNECTOR = re.compile(r"\s+(?:with|by|to|→|->|=>)\s+(?:the\s+)?(?:(?:string|text|word|name)\s+)?", re.IGNORECASE)
_JOIN = re.compile(r"(?:[\s,;:.&*•-]|\d+[.)]|\b(?:and|then|also|plus|please)\b)*", re.IGNORECASE)
_CONDITION = re.compile(
    r"[ \t,(]*\b(?:but\b|except|excluding|unless|only\b|where\b|when\b|if\b|outside|other\s+than|ignoring|"
    r"case[- ]insensitive|regardless|as\s+(?:a\s+)?(?:whole\s+)?words?\b|preserving|keeping)[^\n.;]{0,60}",
    re.IGNORECASE,
)
_LEADING_SCOPE = re.compile(
    r"(?:^|[.;!?])\s*(?:in|within|under|across)\s+([^,.;\n]+(?:\.\w[^,;\n]*)?),?\s*(?:please\s+)?$",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"(?:\b(?:not|never|without|instead\s+of)|n['’]t)\s+(?:to\s+)?\Z",  # noqa: RUF001  prompts hold them
    re.IGNORECASE,
)
_PAIR = re.compile(rf"{QUOTED.pattern}\s+(?:with|by)\s+{QUOTED.pattern}", re.IGNORECASE)


class UnclearInstructionError(ValueError):
    """The prompt asks for a replacement, but with a part that cannot be carried out literally."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """Every literal ``old`` (one line, not empty) becomes ``new``, in files that match one of ``globs`` (none: all)."""

    old: str
    new: str
    globs: tuple[str, ...] = ()

    @property
    def glob(self) -> str | None:
        """``globs`` as one pattern in ripgrep's syntax."""
        return "{" + ",".join(self.globs) + "}" if len(self.globs) > 1 else next(iter(self.globs), None)

    def covers(self, path: str) -> bool:
        return not self.globs or any(matches(glob, path) for glob in self.globs)


def parse_replacements(prompt: str) -> tuple[Replacement, ...]:
    """Return what ``prompt`` asks to replace, in order; empty where it holds no such sentence.

    Raises ``UnclearInstructionError`` where one is found whose restriction ("except in tests") cannot be read,
    or where only some of the replacements could be read.
    """
    replacements: list[Replacement] = []
    read: list[range] = []
    position = 0
    while verb := _VERB.search(prompt, position):
        chain, end = _read_chain(prompt, verb.end())
        if chain and _NEGATION.search(prompt, max(0, verb.start() - 20), verb.start()):
            raise UnclearInstructionError(f"it cannot tell what is meant by not replacing {chain[0].old!r}")
        if chain:
            replacements += _with_leading_scope(chain, prompt[: verb.start()])
            read.append(range(verb.start(), end))
        position = end
    _require_all_read(prompt, read)
    return tuple(replacements)


def _read_chain(prompt: str, position: int) -> tuple[list[Replacement], int]:
    """Read 'A' with 'B', 'C' with 'D' … from just behind a verb; returns them and where the next search begins."""
    chain: list[Replacement] = []
    shares_verb = 0
    pair = _read_pair(prompt, _skip(_FILLER, prompt, position))
    while pair:
        replacement, position = pair
        chain.append(replacement)
        if replacement.globs:
            # "'A' with 'B' and 'C' with 'D' in *.py": the words at the end hold for all that share the verb.
            chain[shares_verb:] = [replace(each, globs=each.globs or replacement.globs) for each in chain[shares_verb:]]
        following = _skip(_JOIN, prompt, position)
        if verb := _VERB.match(prompt, following):
            shares_verb = len(chain)
            following = _skip(_FILLER, prompt, verb.end())
        pair = _read_pair(prompt, following)
    return chain, position


def _read_pair(prompt: str, position: int) -> tuple[Replacement, int] | None:
    old = QUOTED.match(prompt, position)
    if old is None or not unquote(old):
        return None
    globs, position = _scope(prompt, old.end())
    connector = _CONNECTOR.match(prompt, position)
    new = connector and QUOTED.match(prompt, connector.end())
    if new is None:
        return None
    later_globs, end = _scope(prompt, new.end())
    if condition := _CONDITION.match(prompt, end):
        raise UnclearInstructionError(f"it cannot tell what {condition.group().strip(' ,(')!r} would leave out")
    return Replacement(unquote(old), unquote(new), globs or later_globs), end


def _scope(prompt: str, position: int) -> tuple[tuple[str, ...], int]:
    try:
        return read_scope(prompt, position)
    except UnclearScopeError as error:
        raise UnclearInstructionError(str(error)) from error


def _with_leading_scope(chain: list[Replacement], before: str) -> Iterator[Replacement]:
    """Apply "In *.py files, replace …": words before the verb restrict what follows it."""
    leading = _LEADING_SCOPE.search(before.rpartition("\n")[2])
    globs = _scope(f" in {leading[1]}", 0)[0] if leading else ()
    return (replace(each, globs=each.globs or globs) for each in chain)


def _require_all_read(prompt: str, read: list[range]) -> None:
    for pair in _PAIR.finditer(prompt):
        if not any(pair.start() in span for span in read):
            raise UnclearInstructionError(f"it cannot tell what to do with {pair.group()[:120]!r}")


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position
