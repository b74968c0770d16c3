"""Which changesets an event of GitHub may be about. Pure; whatever a payload holds, nothing is raised.

https://docs.github.com/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

_MAX_NUMBER = 2**31 - 1
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


def concerned_by(event: str, payload: Mapping[str, Any]) -> Concerned:
    """``event``: the header `X-GitHub-Event`. Events of no interest concern nothing."""
    about = list(_about(event, payload))[:_MOST]
    return Concerned(
        repository=_text(_mapping(payload, "repository"), "full_name"),
        numbers=[each for each in about if isinstance(each, int)],
        branches=[each.removeprefix(_BRANCHES) for each in about if _is_branch(each)],
        shas=[each for each in about if isinstance(each, str) and not _is_branch(each)],
    )


def _about(event: str, payload: Mapping[str, Any]) -> Iterator[int | str]:
    """Numbers, SHAs, and branches as `refs/heads/…`."""
    match event:
        case "pull_request" | "pull_request_review" | "pull_request_review_comment" | "pull_request_review_thread":
            yield from _number(_mapping(payload, "pull_request"))
        case "issue_comment" if "pull_request" in _mapping(payload, "issue"):
            yield from _number(_mapping(payload, "issue"))
        case "check_suite" | "check_run":
            yield from _check(_mapping(payload, event))
        case "status":
            yield from filter(None, [_text(payload, "sha")])
        case "push":
            yield from filter(_is_branch, [_text(payload, "ref")])
        case "create" | "delete" if payload.get("ref_type") == "branch" and _text(payload, "ref"):
            yield _BRANCHES + _text(payload, "ref")


def _check(check: Mapping[str, Any]) -> Iterator[int | str]:
    yield from filter(None, [_text(check, "head_sha")])
    pulls = check.get("pull_requests")
    for pull in pulls if isinstance(pulls, list) else ():
        if isinstance(pull, Mapping):
            yield from _number(pull)


def _number(of: Mapping[str, Any]) -> Iterator[int]:
    number = of.get("number")
    if type(number) is int and 0 < number <= _MAX_NUMBER:  # a bool is an int too
        yield number


def _is_branch(about: int | str) -> TypeGuard[str]:
    """And no tag, which a push may be of too."""
    return isinstance(about, str) and about.startswith(_BRANCHES) and about != _BRANCHES


def _mapping(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = of.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name)
    return value if isinstance(value, str) and len(value) <= _MOST * 10 and value.isprintable() else ""
