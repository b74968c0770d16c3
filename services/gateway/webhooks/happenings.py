"""Which of GitHub's events may become work: issues, remarks on pull requests, failed checks. Pure; nothing is raised.

https://docs.github.com/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.gateway.webhooks.payloads import (
    Actor,
    Payload,
    RepositoryName,
    actor,
    identifier,
    mapping,
    mappings,
    number,
    repository,
    text,
    words,
)

_ISSUE_ACTIONS: Final = ("opened", "edited", "labeled")
_FAILED: Final = ("failure", "timed_out")


@dataclass(frozen=True)
class IssueEvent:
    """``action``: opened, edited, labeled, or commented. ``said``: by whoever it was, at this moment."""

    repository: RepositoryName
    number: int
    action: str
    actor: Actor
    said: str
    labels: tuple[str, ...]
    label: str = ""
    """The one that was added."""


@dataclass(frozen=True)
class Remark:
    """What somebody said on a pull request. ``subject``: tells it apart from all others there."""

    repository: RepositoryName
    number: int
    subject: str
    author: Actor
    said: str
    thread: str | None = None
    """The id of the review comment that begins its thread; None: it is not in the code."""
    path: str = ""
    line: int = 0
    hunk: str = ""


@dataclass(frozen=True)
class FailedSuite:
    """A suite of checks on a commit that has failed."""

    repository: RepositoryName
    sha: str


def issue_event(event: str, payload: Payload) -> IssueEvent | None:
    issue, action = mapping(payload, "issue"), text(payload, "action")
    is_comment = event == "issue_comment" and action == "created"
    is_change = event == "issues" and action in _ISSUE_ACTIONS
    if not (is_comment or is_change) or "pull_request" in issue or not _is_placed(payload, issue):
        return None
    said = f"{words(issue, 'title')}\n{words(issue, 'body')}"
    return IssueEvent(
        repository=repository(payload),
        number=number(issue),
        action="commented" if is_comment else action,
        actor=actor(payload, "sender"),
        said=words(mapping(payload, "comment"), "body") if is_comment else said,
        labels=tuple(text(label, "name") for label in mappings(issue, "labels")),
        label=text(mapping(payload, "label"), "name"),
    )


def remark(event: str, payload: Payload) -> Remark | None:
    match event, text(payload, "action"):
        case "pull_request_review_comment", "created":
            found = _in_code(payload)
        case "issue_comment", "created" if "pull_request" in mapping(payload, "issue"):
            found = _remark(payload, "comment", "issue", "issue-comment")
        case "pull_request_review", "submitted":
            found = _remark(payload, "review", "pull_request", "review")
        case _:
            return None
    return found if found is not None and found.said.strip() else None


def failed_suite(event: str, payload: Payload) -> FailedSuite | None:
    suite = mapping(payload, "check_suite")
    if event != "check_suite" or text(payload, "action") != "completed" or text(suite, "conclusion") not in _FAILED:
        return None
    found = FailedSuite(repository(payload), text(suite, "head_sha"))
    return found if found.sha and found.repository.full_name else None


def _in_code(payload: Payload) -> Remark | None:
    comment = mapping(payload, "comment")
    first = identifier(comment, "in_reply_to_id") or identifier(comment)
    return _remark(
        payload,
        "comment",
        "pull_request",
        "review-comment",
        thread=str(first),
        path=text(comment, "path"),
        line=number(comment, "line") or number(comment, "original_line"),
        hunk=words(comment, "diff_hunk"),
    )


def _remark(
    payload: Payload,
    name: str,
    place: str,
    kind: str,
    *,
    thread: str | None = None,
    path: str = "",
    line: int = 0,
    hunk: str = "",
) -> Remark | None:
    """``name``: of what was said in the payload. ``place``: of the pull request. ``kind``: of its subject."""
    said = mapping(payload, name)
    if not _is_placed(payload, mapping(payload, place)) or not identifier(said):
        return None
    return Remark(
        repository=repository(payload),
        number=number(mapping(payload, place)),
        subject=f"{kind}:{identifier(said)}",
        author=actor(said, "user"),
        said=words(said, "body"),
        thread=thread,
        path=path,
        line=line,
        hunk=hunk,
    )


def _is_placed(payload: Payload, at: Payload) -> bool:
    return bool(repository(payload).full_name and number(at))
