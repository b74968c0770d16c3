"""Reads "in *.py files" and its kin behind a replacement into globs. Pure; refuses what it cannot read."""

from __future__ import annotations

import re

# On the next line only in small letters: "In …" there begins a sentence of its own.
_INTRO = re.compile(
    r"(?:[ \t]*+,?[ \t]*+|[ \t]*+,?\n[ \t]*+(?-i:(?=[a-z])))"
    r"(?:but\s+)?(?:only\s+)?\b(?:in|within|inside|under|across|throughout)\s+",
    re.IGNORECASE,
)
_NO_SCOPE = re.compile(
    r"(?:order\s+to|addition|one\b|a\s+single\b|https?://\S+"
    r"|(?:(?:the|this)\s+)?(?:repository|repo|project)\s+\S*/\S*[^\s.,;])",
    re.IGNORECASE,
)
_EVERYWHERE = re.compile(
    r"(?:(?:all|every|each|any|of|the|this|these|our|my|whole|entire|given|source|code|tracked|text)\s+)*"
    r"(?:files?|repositor(?:y|ies)|repos?|project|codebase|code|tree|checkout|worktree|sources?)\b(?!\s+matching)"
    r"|(?:the|this)\s+\S+\s+(?:repository|repo|project)\b",
    re.IGNORECASE,
)
_ARTICLES = re.compile(r"(?:(?:all|every|each|any|the|of|files?|matching)\s+)*", re.IGNORECASE)
_GLOB = re.compile(
    r"['\"`]([^\s'\"`]*[*?./\[][^\s'\"`]*)['\"`](?!\s+(?:with|by|to)\b)"
    r"|((?:[^\s,;'\"`(){}]|\{[^\s{}]*\})+)"
)
_AND = re.compile(r"\s*(?:,\s*(?:and\s+|or\s+)?|\s(?:and|or)\s+)", re.IGNORECASE)
_FILES = re.compile(r"\s+(?:files?|directory|folder)\b", re.IGNORECASE)
_LANGUAGES = {
    "python": ("*.py",),
    "markdown": ("*.md",),
    "javascript": ("*.js",),
    "typescript": ("*.ts", "*.tsx"),
    "go": ("*.go",),
    "rust": ("*.rs",),
    "java": ("*.java",),
    "yaml": ("*.yaml", "*.yml"),
    "json": ("*.json",),
    "html": ("*.html",),
    "css": ("*.css",),
}
_LANGUAGE = re.compile(rf"({'|'.join(_LANGUAGES)})\s+(?:source\s+)?(?:files?|code|sources?)\b", re.IGNORECASE)
_DIRECTORY = re.compile(
    r"(?:the\s+)?(?:['\"`]?([\w.-]+)['\"`]?\s+(?:directory|folder)\b|(?:directory|folder)\s+['\"`]?([\w.-]*\w)['\"`]?)",
    re.IGNORECASE,
)


class UnclearScopeError(ValueError):
    """Words that restrict where to replace, but in no form that is understood."""


def read_scope(text: str, position: int) -> tuple[tuple[str, ...], int]:
    """Read where to replace, from ``position`` on; returns globs (none: everywhere) and where the words end.

    Raises ``UnclearScopeError`` where the text does restrict the place, in other words than these.
    """
    globs: tuple[str, ...] = ()
    # One may follow the other: "in all files under docs/ in this repository".
    while intro := _INTRO.match(text, position):
        found, end = _read_place(text, intro)
        if globs and found:
            raise _unclear(text, intro)
        globs, position = globs or found, end
    return globs, position


def _read_place(text: str, intro: re.Match[str]) -> tuple[tuple[str, ...], int]:
    start = intro.end()
    if _NO_SCOPE.match(text, start):
        return (), start
    for read in (_read_language, _read_everywhere, _read_directory, _read_globs):
        if (found := read(text, start)) is not None:
            return found
    raise _unclear(text, intro)


def _unclear(text: str, intro: re.Match[str]) -> UnclearScopeError:
    words = text[intro.start() :].strip(" ,\n").split("\n", 1)[0][:60]
    return UnclearScopeError(f"it cannot tell which files {words!r} means; name them as in 'in *.py files'")


def _read_language(text: str, position: int) -> tuple[tuple[str, ...], int] | None:
    articles = _ARTICLES.match(text, position)
    found = _LANGUAGE.match(text, articles.end() if articles else position)
    return (_LANGUAGES[found[1].lower()], found.end()) if found else None


def _read_everywhere(text: str, position: int) -> tuple[tuple[str, ...], int] | None:
    found = _EVERYWHERE.match(text, position)
    return ((), found.end()) if found else None


def _read_directory(text: str, position: int) -> tuple[tuple[str, ...], int] | None:
    found = _DIRECTORY.match(text, position)
    return ((f"{found[1] or found[2]}/**",), found.end()) if found else None


def _read_globs(text: str, position: int) -> tuple[tuple[str, ...], int] | None:
    globs: list[str] = []
    articles = _ARTICLES.match(text, position)
    end = following = articles.end() if articles else position
    while found := _GLOB.match(text, following):
        # The full stop of the sentence is none of the glob's.
        token = (found[1] or found[2]).rstrip(".!?") if not found[1] else found[1]
        if not re.search(r"[*?./\[]", token):
            break
        globs.append(_as_glob(token))
        end = found.end() if found[1] else found.start() + len(token)
        if files := _FILES.match(text, end):
            end = files.end()
        joined = _AND.match(text, end)
        if joined is None:
            break
        following = joined.end()
    return (tuple(globs), end) if globs else None


def _as_glob(token: str) -> str:
    token = token.removeprefix("./")
    if token.endswith("/"):
        return token + "**"
    is_extension = re.fullmatch(r"\.\w{1,10}", token) is not None
    return "*" + token if is_extension else token
