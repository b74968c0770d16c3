"""Which values a request's fields may have. Pure; every refusal names its field."""

import re
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from services.contracts.v1 import vcs_pb2
from services.contracts.words import MergeMethod
from services.vcs.errors import RefRefusedError, VcsError
from services.vcs.forges import MOST_LISTED, RepositoryQuery
from services.vcs.git.repositories import checked_sha

MOST_COMMENT_CHARACTERS: Final = 65_536
"""As GitHub has it."""
_MOST_WORDS: Final = 100
_MOST_WORD_CHARACTERS: Final = 200
_MOST_SEARCH_CHARACTERS: Final = 500
_LISTED_UNASKED: Final = 100
_SHOWN_CHARACTERS: Final = 60
_HIGHEST_NUMBER: Final = 2**31 - 1
"""That Postgres keeps as an integer."""
# Logins of apps end in `[bot]`, those of managed users hold an underscore.
_LOGIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(?:\[bot\])?", re.ASCII)
_MANIFEST_CODE: Final = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)
_COMMENT_ID: Final = re.compile(r"[A-Za-z0-9_.-]{0,100}", re.ASCII)


class FieldRefusedError(VcsError):
    """A field of the request cannot have its value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")


def uuid_of(field: str, text: str) -> UUID:
    """Raises ``FieldRefusedError``, as all here do."""
    try:
        found = UUID(text)
    except ValueError:
        raise FieldRefusedError(field, f"{_shown(text)} is no UUID") from None
    if str(found) != text.lower():
        raise FieldRefusedError(field, f"{_shown(text)} is no UUID; write it as {found}")
    return found


def worktree_of(asked: vcs_pb2.WorktreeRef) -> tuple[str, int]:
    """The run's id and the attempt's number."""
    if asked.attempt < 1:
        raise FieldRefusedError("worktree.attempt", "attempts count from 1")
    return str(uuid_of("worktree.run_id", asked.run_id)), asked.attempt


def sha_of(field: str, text: str) -> str:
    """A full commit SHA in lower case."""
    try:
        return checked_sha(text)
    except RefRefusedError as error:
        raise FieldRefusedError(field, error.message) from None


def merge_method(text: str) -> MergeMethod:
    if text not in set(MergeMethod):
        raise FieldRefusedError("method", f"{_shown(text)} is no way to merge; write {' or '.join(MergeMethod)}")
    return MergeMethod(text)


def login(field: str, text: str) -> str:
    if not _LOGIN.fullmatch(text):
        raise FieldRefusedError(field, f"{_shown(text)} cannot be anyone's name on a forge")
    return text


def comment_body(field: str, text: str, *, may_be_empty: bool = False) -> str:
    """At most ``MOST_COMMENT_CHARACTERS``."""
    if not text.strip() and not may_be_empty:
        raise FieldRefusedError(field, "is empty; say something")
    return _short(field, text, MOST_COMMENT_CHARACTERS)


def issue_number(field: str, number: int) -> int:
    """Of an issue or pull request: from 1."""
    if not 1 <= number <= _HIGHEST_NUMBER:
        raise FieldRefusedError(field, f"no issue has the number {number}; they count from 1")
    return number


def comment_id(field: str, text: str) -> str:
    """A forge's id of a comment, or nothing."""
    if not _COMMENT_ID.fullmatch(text):
        raise FieldRefusedError(field, f"{_shown(text)} is no id of a comment")
    return text


def manifest_code(field: str, text: str) -> str:
    """It is good for an App's secrets: not repeated."""
    if not _MANIFEST_CODE.fullmatch(text):
        raise FieldRefusedError(field, "is no code of a manifest; give `code` of the address that GitHub redirected to")
    return text


def repository_query(asked: vcs_pb2.ListRepositoriesRequest) -> RepositoryQuery:
    if asked.limit > MOST_LISTED:
        raise FieldRefusedError("limit", f"at most {MOST_LISTED:,} repositories are listed; narrow the query")
    return RepositoryQuery(
        owner=login("owner", asked.owner) if asked.owner else "",
        patterns=_words("patterns", asked.patterns),
        topics=_words("topics", asked.topics),
        search=_short("search", asked.search, _MOST_SEARCH_CHARACTERS),
        include_archived=asked.include_archived,
        include_forks=asked.include_forks,
        limit=asked.limit or _LISTED_UNASKED,
    )


def _words(field: str, texts: Sequence[str]) -> tuple[str, ...]:
    if len(texts) > _MOST_WORDS:
        raise FieldRefusedError(field, f"holds {len(texts)} values; at most {_MOST_WORDS} are taken")
    for number, text in enumerate(texts):
        if not text.strip() or not text.isprintable():
            raise FieldRefusedError(f"{field}[{number}]", "is empty or holds a control character")
        _short(f"{field}[{number}]", text, _MOST_WORD_CHARACTERS)
    return tuple(texts)


def _short(field: str, text: str, most: int) -> str:
    if len(text) > most:
        raise FieldRefusedError(field, f"has {len(text):,} characters; at most {most:,} are taken")
    return text


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")
