"""The jobs that come of what happened on GitHub: what they are asked, on which branch, and what is published. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from services.contracts.rest import JobRequest
from services.contracts.text import storable
from services.contracts.v1 import vcs_pb2
from services.contracts.words import JobKind, OnExisting, Publish
from services.gateway.webhooks.happenings import Remark
from services.gateway.webhooks.prompting import checks_prompt, issue_prompt, review_prompt
from services.jobs.answers import WorkKind
from services.jobs.submission import NewRun
from services.jobs.work_items import READ_AT, OpenChangeset

KIND_KEY: Final = "webhook"
"""Of a job's metadata: which kind of work item it comes from."""
_MOST_TITLE: Final = 240


def issue_request(url: str, full_name: str, issue: vcs_pb2.Issue, *, read_at: str) -> JobRequest:
    """A change on a branch of its own, as a pull request that closes the issue."""
    title = _title(issue.title) or f"Issue {issue.number}"
    closing = f"Fixes #{issue.number}"
    return JobRequest.model_validate(
        {
            "prompt": issue_prompt(full_name, issue),
            "kind": JobKind.CODE,
            "repositories": [{"url": url, "branch": f"claude-code/issue-{issue.number}-{time.time_ns() // 1_000_000}"}],
            "metadata": _metadata(WorkKind.ISSUE, full_name, issue.number, read_at),
            "options": {
                "publish": Publish.PULL_REQUEST,
                "onExisting": OnExisting.SEPARATE,
                "commitMessage": f"{title}\n\n{closing}",
                "pullRequest": {"title": title, "body": f"{closing}\n\n{{summary}}"},
            },
        }
    )


def review_request(
    change: OpenChangeset, full_name: str, remark: Remark, pull: vcs_pb2.Issue, *, read_at: str
) -> JobRequest:
    """A run on the pull request's branch, with the options of the job that made it."""
    prompt = review_prompt(full_name, pull, remark, task=change.prompt)
    metadata = _metadata(WorkKind.REVIEW, full_name, pull.number, read_at) | {"remark": remark.subject}
    return _following(change, prompt, metadata, f"Follow a remark on #{pull.number}")


def checks_request(
    change: OpenChangeset,
    full_name: str,
    sha: str,
    checks: Sequence[vcs_pb2.FailedCheck],
    pull: vcs_pb2.Issue,
    *,
    read_at: str,
) -> JobRequest:
    """The same for checks that failed."""
    prompt = checks_prompt(full_name, pull.number, sha, checks, task=change.prompt)
    metadata = _metadata(WorkKind.CHECK, full_name, pull.number, read_at) | {"commit": sha}
    return _following(change, prompt, metadata, f"Repair the checks of #{pull.number}")


def following_run(change: OpenChangeset) -> NewRun:
    """On the branch of the pull request, which stays one into the branch that it was for."""
    return NewRun(
        change.repository,
        base_ref=change.branch,
        branch=change.branch,
        # Empty: into the default branch, as where it began at a tag; and never into itself.
        base_branch=change.base_branch or "",
        checkout=change.checkout,
    )


def _following(change: OpenChangeset, prompt: str, metadata: dict[str, str], message: str) -> JobRequest:
    """Under the name of the job before it, whose later runs are to find the pull request. Its words stay."""
    changed: dict[str, Any] = {
        "publish": Publish.DRAFT if change.is_draft else Publish.PULL_REQUEST,
        "onExisting": OnExisting.SEPARATE,
        "commitMessage": message,
        "pullRequest": {},
    }
    return JobRequest.model_validate(
        {
            "prompt": prompt,
            "kind": JobKind.CODE,
            "name": change.name,
            "repositories": [{"url": change.repository, "baseRef": change.branch, "branch": change.branch}],
            "metadata": metadata,
            "options": change.options.model_dump(mode="json", by_alias=True) | changed,
        }
    )


def _metadata(kind: WorkKind, full_name: str, number: int, read_at: str) -> dict[str, str]:
    return {KIND_KEY: kind.value, "repository": full_name, "number": str(number), READ_AT: read_at}


def _title(text: str) -> str:
    return " ".join(storable(text).split())[:_MOST_TITLE].strip()
