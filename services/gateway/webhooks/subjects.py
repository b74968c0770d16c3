"""Which changesets an event of GitHub may be about. Pure; whatever a payload holds, nothing is raised.

https://docs.github.com/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_MAX_NUMBER = 2**31 - 1
_MOST = 100


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
        branches=[each.removeprefix("refs/heads/") for each in about if isinstance(each, str) and each[:5] == "refs/"],
        shas=[each for each in about if isinstance(each, str) and each[:5] != "refs/"],
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
        case "push" | "delete" | "create":
            yield from _ref(payload)


def _check(check: Mapping[str, Any]) -> Iterator[int | str]:
    yield from filter(None, [_text(check, "head_sha")])
    pulls = check.get("pull_requests")
    for pull in pulls if isinstance(pulls, list) else ():
        if isinstance(pull, Mapping):
            yield from _number(pull)


def _ref(payload: Mapping[str, Any]) -> Iterator[str]:
    ref = _text(payload, "ref")
    if ref and payload.get("ref_type", "branch") == "branch":
        yield ref if ref.startswith("refs/") else f"refs/heads/{ref}"


def _number(of: Mapping[str, Any]) -> Iterator[int]:
    number = of.get("number")
    if isinstance(number, int) and 0 < number <= _MAX_NUMBER:
        yield number


def _mapping(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = of.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name)
    return value if isinstance(value, str) and len(value) <= _MOST * 10 and value.isprintable() else ""
