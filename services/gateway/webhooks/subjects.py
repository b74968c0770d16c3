"""Which changesets an event of GitHub may be about. Pure; whatever a payload holds, nothing is raised.

https://docs.github.com/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

from services.gateway.webhooks.payloads import Payload, mapping, mappings, number, text

_MOST = 100
_BRANCHES = "refs/heads/"


@dataclass(frozen=True)
class Concerned:
    """Of one repository, `owner/name`: the numbers of pull requests, names of branches and SHAs of commits."""

    repository: str
    numbers: list[int]
    branches: list[str]
    shas: list[str]

    @property
    def is_nothing(self) -> bool:
        return not (self.repository and (self.numbers or self.branches or self.shas))


def concerned_by(event: str, payload: Payload) -> Concerned:
    """``event``: the header `X-GitHub-Event`. Events of no interest concern nothing."""
    about = list(_about(event, payload))[:_MOST]
    return Concerned(
        repository=text(mapping(payload, "repository"), "full_name"),
        numbers=[each for each in about if isinstance(each, int)],
        branches=[each.removeprefix(_BRANCHES) for each in about if _is_branch(each)],
        shas=[each for each in about if isinstance(each, str) and not _is_branch(each)],
    )


def _about(event: str, payload: Payload) -> Iterator[int | str]:
    """Numbers, SHAs, and branches as `refs/heads/…`."""
    match event:
        case "pull_request" | "pull_request_review" | "pull_request_review_comment" | "pull_request_review_thread":
            yield from filter(None, [number(mapping(payload, "pull_request"))])
        case "issue_comment" if "pull_request" in mapping(payload, "issue"):
            yield from filter(None, [number(mapping(payload, "issue"))])
        case "check_suite" | "check_run":
            yield from _check(mapping(payload, event))
        case "status":
            yield from filter(None, [text(payload, "sha")])
        case "push":
            yield from filter(_is_branch, [text(payload, "ref")])
        case "create" | "delete" if payload.get("ref_type") == "branch" and text(payload, "ref"):
            yield _BRANCHES + text(payload, "ref")


def _check(check: Payload) -> Iterator[int | str]:
    yield from filter(None, [text(check, "head_sha")])
    yield from filter(None, map(number, mappings(check, "pull_requests")))


def _is_branch(about: int | str) -> TypeGuard[str]:
    """And no tag, which a push may be of too."""
    return isinstance(about, str) and about.startswith(_BRANCHES) and about != _BRANCHES
