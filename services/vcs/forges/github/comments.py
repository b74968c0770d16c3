"""Comments on an issue or pull request and in review threads. A hidden marker tells whether one was posted before."""

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from services.vcs.errors import ForgeError, ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges import MARK, MOST_BODY, MarkedComment, PostedComment
from services.vcs.forges.github.answers import Comment
from services.vcs.forges.github.calls import RepositoryCalls

_CUT: Final = "\n\n*(cut: GitHub takes no more)*"
_SKEW: Final = timedelta(hours=1)
"""By which our clock may be ahead of GitHub's."""


async def comment_once(calls: RepositoryCalls, number: int, text: str, *, about: str) -> PostedComment:
    """Post it unless the same text ``about`` the same was posted before, by this call or an earlier one."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    marker = _marker(f"{about}:{digest}")
    found = await _marked(_on_issue(calls, number), marker)
    return found or await _posted(calls, number, text, marker)


async def comment(calls: RepositoryCalls, number: int, text: str) -> PostedComment:
    """Post it, and be sure of that where the answer is lost."""
    return await _posted(calls, number, text, _marker(secrets.token_hex(8)))


async def reply(calls: RepositoryCalls, number: int, text: str, *, in_reply_to: str) -> PostedComment:
    """Post it in the thread of a review comment. ``in_reply_to``: that comment's id."""
    return await _replied(calls, number, text, _marker(secrets.token_hex(8)), _thread(in_reply_to))


async def post_once(calls: RepositoryCalls, wanted: MarkedComment) -> PostedComment:
    """Post it unless an earlier try has. What is new on the issue since that began is looked through, and no more."""
    number, marker, since = wanted.number, _marker(wanted.id), wanted.tried_since
    thread = _thread(wanted.in_reply_to) if wanted.in_reply_to else None
    if since is not None:
        said = _in_threads(calls, number, since) if thread else _on_issue(calls, number, since)
        if found := await _marked(said, marker):
            return found
    if thread:
        return await _replied(calls, number, wanted.body, marker, thread, since)
    return await _posted(calls, number, wanted.body, marker, since)


async def _posted(
    calls: RepositoryCalls, number: int, text: str, marker: str, since: datetime | None = None
) -> PostedComment:
    body = {"body": _with_marker(text, marker)}
    try:
        posted = await calls.send(Comment, "POST", "issues", number, "comments", body=body)
    except ForgeUnavailableError as doubt:
        return await _found(_on_issue(calls, number, since), marker, doubt)
    return _shown(posted)


async def _replied(
    calls: RepositoryCalls, number: int, text: str, marker: str, thread: int, since: datetime | None = None
) -> PostedComment:
    body = {"body": _with_marker(text, marker), "in_reply_to": thread}
    try:
        posted = await calls.send(Comment, "POST", "pulls", number, "comments", body=body)
    except ForgeUnavailableError as doubt:
        return await _found(_in_threads(calls, number, since), marker, doubt)
    return _shown(posted)


def _on_issue(calls: RepositoryCalls, number: int, since: datetime | None = None) -> AsyncIterator[Comment]:
    return _pages(calls, ("issues", number, "comments"), since)


def _in_threads(calls: RepositoryCalls, number: int, since: datetime | None = None) -> AsyncIterator[Comment]:
    return _pages(calls, ("pulls", number, "comments"), since)


def _pages(calls: RepositoryCalls, path: Sequence[object], since: datetime | None) -> AsyncIterator[Comment]:
    """The newest first, where GitHub can: of an issue's comments it cannot."""
    if since is None:
        return calls.pages(Comment, *path, sort="created", direction="desc")
    moment = (since - _SKEW).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return calls.pages(Comment, *path, sort="created", direction="desc", since=moment)


async def _found(comments: AsyncIterator[Comment], marker: str, doubt: ForgeUnavailableError) -> PostedComment:
    """What was posted though its answer was lost; else raises ``doubt``, also where GitHub now wants to be left alone:
    nobody may take it that nothing was posted.
    """
    try:
        found = await _marked(comments, marker)
    except ForgeError as error:
        raise doubt from error
    if found is None:
        raise doubt
    return found


async def _marked(comments: AsyncIterator[Comment], marker: str) -> PostedComment | None:
    async for one in comments:
        if marker in (one.body or ""):
            return _shown(one)
    return None


def _thread(in_reply_to: str) -> int:
    if not (in_reply_to.isascii() and in_reply_to.isdecimal()):
        raise ForgeRefusedError(f"{in_reply_to[:50]!r} is no review comment's id; give the number that GitHub shows")
    return int(in_reply_to)


def _marker(about: str) -> str:
    return f"{MARK}comment={about} -->"


def _with_marker(text: str, marker: str) -> str:
    """No longer than GitHub takes."""
    end = f"\n\n{marker}"
    room = MOST_BODY - len(end)
    return (text if len(text) <= room else text[: room - len(_CUT)] + _CUT) + end


def _shown(posted: Comment) -> PostedComment:
    return PostedComment(str(posted.id), posted.html_url)
