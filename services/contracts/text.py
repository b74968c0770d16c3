"""The one sanitiser for text that comes from outside and is stored as text."""

from __future__ import annotations

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
_STORABLE = {0: "\N{SYMBOL FOR NULL}", **_SURROGATES}


def storable(text: str) -> str:
    """``text`` without what PostgreSQL refuses: NUL shown as ␀, lone surrogates as U+FFFD."""
    return text.translate(_STORABLE)


def is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def clipped(text: str, most: int, *, where: str = "") -> str:
    """At most ``most`` characters of ``text``, the last of which tell what was cut. ``where``: who has all of it."""
    if len(text) <= most:
        return text
    words = f"… [cut: {len(text):,} characters in all{', ' if where else ''}{where}]"
    return text[: max(0, most - len(words))] + words


def shown(text: str) -> str:
    """``text`` as it may be sent to a terminal: C0, DEL and C1 controls made visible, but newline and tab."""
    return "".join(
        char if char in "\n\t" or not (char < " " or "\x7f" <= char <= "\x9f") else f"\\x{ord(char):02x}"
        for char in storable(text)
    )
