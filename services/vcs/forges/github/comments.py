"""Comments on a pull request and in its review threads. A hidden marker tells whether one was posted before."""

import hashlib
import secrets
from collections.abc import AsyncIterator

from services.vcs.errors import ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges import PostedComment
from services.vcs.forges.github.answers import Comment
from services.vcs.forges.github.calls import RepositoryCalls


async def comment_once(calls: RepositoryCalls, number: int, text: str, *, about: str) -> PostedComment:
    """Post it unless the same text ``about`` the same was posted before, by this call or an earlier one."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    marker = f"<!-- quarterdeck:comment={about}:{digest} -->"
    found = await _marked(_on_pull(calls, number), marker)
    return found or await _posted(calls, number, f"{text}\n\n{marker}", marker)


async def comment(calls: RepositoryCalls, number: int, text: str) -> PostedComment:
    """Post it, and be sure of that where the answer is lost."""
    marker = _new_marker()
    return await _posted(calls, number, f"{text}\n\n{marker}", marker)


async def reply(calls: RepositoryCalls, number: int, text: str, *, in_reply_to: str) -> PostedComment:
    """Post it in the thread of a review comment. ``in_reply_to``: that comment's id."""
    if not in_reply_to.isdecimal():
        raise ForgeRefusedError(f"{in_reply_to[:50]!r} is no review comment's id; give the number that GitHub shows")
    marker = _new_marker()
    body = {"body": f"{text}\n\n{marker}", "in_reply_to": int(in_reply_to)}
    try:
        posted = await calls.send(Comment, "POST", "pulls", number, "comments", body=body)
    except ForgeUnavailableError:
        replies = calls.pages(Comment, "pulls", number, "comments", sort="created", direction="desc")
        if found := await _marked(replies, marker):
            return found
        raise
    return _shown(posted)


async def _posted(calls: RepositoryCalls, number: int, text: str, marker: str) -> PostedComment:
    try:
        posted = await calls.send(Comment, "POST", "issues", number, "comments", body={"body": text})
    except ForgeUnavailableError:
        if found := await _marked(_on_pull(calls, number), marker):
            return found
        raise
    return _shown(posted)


def _on_pull(calls: RepositoryCalls, number: int) -> AsyncIterator[Comment]:
    return calls.pages(Comment, "issues", number, "comments")


async def _marked(comments: AsyncIterator[Comment], marker: str) -> PostedComment | None:
    async for one in comments:
        if marker in (one.body or ""):
            return _shown(one)
    return None


def _new_marker() -> str:
    return f"<!-- quarterdeck:comment={secrets.token_hex(8)} -->"


def _shown(posted: Comment) -> PostedComment:
    return PostedComment(str(posted.id), posted.html_url)
