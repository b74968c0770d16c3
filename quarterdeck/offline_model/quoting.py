"""What counts as a quoted string in a prompt: straight and typographic quotes and backticks, on one line."""

from __future__ import annotations

import re

_LONGEST = 1_000
"""More than a search takes as its pattern; the bound also keeps a prompt full of quotes from taking long to read."""
_PAIRS = ("''", '""', "``", "‘’", "“”", "„“", "«»")  # noqa: RUF001  prompts hold them


def _alternative(opening: str, closing: str) -> str:
    # An apostrophe inside a word (don't) and a quote behind a backslash belong to the string.
    return rf"{opening}((?:\\{closing}|(?<=\w){closing}(?=\w)|[^{closing}\n]){{0,{_LONGEST}}}?){closing}(?!\w)"


QUOTED = re.compile(r"(?<![\w\\])(?:" + "|".join(_alternative(*pair) for pair in _PAIRS) + ")")
"""One group for each kind of quote; exactly one of them takes part in a match."""


def unquote(match: re.Match[str]) -> str:
    """Return the text inside a match of ``QUOTED``; backslashes stay, but for those before the closing quote's kind."""
    closing = match.group()[-1]
    content = next(group for group in match.groups() if group is not None)
    return content.replace("\\" + closing, closing)
