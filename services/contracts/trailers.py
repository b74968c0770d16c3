"""The trailers that end a commit's message, such as its sign-off. Pure."""

from __future__ import annotations

import re

_TRAILER = re.compile(r"[A-Za-z0-9-]+[ \t]*:")
_WRITTEN_BY_GIT = ("Signed-off-by: ", "(cherry picked from commit ")
"""Lines that Git itself writes: a paragraph with one of them is a block of trailers even among other text."""
_OTHER_LINES_PER_TRAILER = 3


def with_trailer(message: str, key: str, value: str) -> str:
    """``message`` ending in the trailer `key: value`, which joins those that are there and is not repeated.

    What counts as trailers is decided as `git interpret-trailers` does. The result ends with one line end.
    """
    line = f"{key}: {value}"
    text = message.rstrip()
    trailers = _trailers(text)
    # A trailer may go on in lines that begin with a space.
    if line in re.sub(r"\n[ \t]+", " ", "\n".join(trailers)).split("\n"):
        return f"{text}\n"
    gap = "\n" if trailers else "\n\n"
    return f"{text}{gap}{line}\n"


def _trailers(text: str) -> list[str]:
    """The lines of the last paragraph if they are trailers; never the subject."""
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", text.lstrip("\n"))
    lines = paragraphs[-1].split("\n")
    return lines if len(paragraphs) > 1 and _is_trailer_block(lines) else []


def _is_trailer_block(lines: list[str]) -> bool:
    trailers = others = 0
    from_git = follows_trailer = False
    for line in lines:
        if line[:1] in {" ", "\t"} and (trailers or others):
            # Goes on from the line before, and is what that is.
            others += not follows_trailer
            continue
        follows_trailer = line.startswith(_WRITTEN_BY_GIT) or _TRAILER.match(line) is not None
        from_git |= line.startswith(_WRITTEN_BY_GIT)
        trailers += follows_trailer
        others += not follows_trailer
    return bool(trailers) and (not others or (from_git and trailers * _OTHER_LINES_PER_TRAILER >= others))
