"""Reads issues with what was said on them, bounded, and without what we said there ourselves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

from services.contracts.text import storable
from services.vcs.forges import MARK, MOST_BODY, MOST_COMMENTS, Issue, IssueComment
from services.vcs.forges.github import answers
from services.vcs.forges.github.answers import Account, Comment, Label
from services.vcs.forges.github.calls import RepositoryCalls

_MOST_TITLE: Final = 1_000
_MOST_PAGES: Final = 5
"""Of comments, 100 on each: ours are among them, and are passed over."""
_UNKNOWN: Final = datetime.fromtimestamp(0, UTC)


async def issue_of(calls: RepositoryCalls, number: int, *, app_id: str) -> Issue:
    """``app_id``: of the App that we are; empty: none."""
    found = await calls.get(answers.Issue, "issues", number)
    return Issue(
        number=found.number,
        title=storable(found.title)[:_MOST_TITLE],
        body=storable(found.body or "")[:MOST_BODY],
        state=found.state,
        author=_login(found.user),
        url=found.html_url,
        labels=[storable(label.name if isinstance(label, Label) else label) for label in found.labels],
        is_pull_request=found.pull_request is not None,
        comments=[one async for one in _comments(calls, number, app_id)],
    )


async def _comments(calls: RepositoryCalls, number: int, app_id: str) -> AsyncIterator[IssueComment]:
    count = 0
    async for comment in calls.pages(Comment, "issues", number, "comments", most_pages=_MOST_PAGES):
        if _is_ours(comment, app_id):
            continue
        body = storable(comment.body or "")[:MOST_BODY]
        yield IssueComment(str(comment.id), _login(comment.user), body, comment.created_at or _UNKNOWN)
        count += 1
        if count == MOST_COMMENTS:
            return


def _is_ours(comment: Comment, app_id: str) -> bool:
    via = comment.performed_via_github_app
    return MARK in (comment.body or "") or (via is not None and str(via.id) == app_id)


def _login(account: Account | None) -> str:
    return storable(account.login) if account else ""
