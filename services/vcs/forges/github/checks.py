"""Reads which checks of a commit failed, of both kinds that GitHub has, and what they say of themselves."""

from collections.abc import AsyncIterator
from itertools import islice
from typing import Final

from services.contracts.text import storable
from services.contracts.words import Checks
from services.vcs.errors import ForgeRefusedError
from services.vcs.forges import MOST_CHECKS, MOST_SUMMARY, FailedCheck
from services.vcs.forges.github.answers import CheckRun, CommitStatus
from services.vcs.forges.github.calls import RepositoryCalls
from services.vcs.forges.github.status import run_word

_FAILED: Final = frozenset({"failure", "error"})
_MOST_PAGES: Final = 5
_MOST_WORDS: Final = 1_000


async def failed_checks_at(calls: RepositoryCalls, sha: str) -> list[FailedCheck]:
    """Those of check runs, then commit statuses; what the credentials may not read counts as not there."""
    found = [*await _readable(_runs(calls, sha)), *await _readable(_statuses(calls, sha))]
    return list(islice(found, MOST_CHECKS))


async def _readable(checks: AsyncIterator[FailedCheck]) -> list[FailedCheck]:
    try:
        return [check async for check in checks]
    except ForgeRefusedError:
        return []


async def _runs(calls: RepositoryCalls, sha: str) -> AsyncIterator[FailedCheck]:
    runs = calls.pages(CheckRun, "commits", sha, "check-runs", key="check_runs", most_pages=_MOST_PAGES)
    async for run in runs:
        if run_word(run) is Checks.FAILING:
            output = run.output
            yield _failed(run.name, run.conclusion or "", output.title, output.summary, run.html_url)


async def _statuses(calls: RepositoryCalls, sha: str) -> AsyncIterator[FailedCheck]:
    statuses = calls.pages(CommitStatus, "commits", sha, "status", key="statuses", most_pages=_MOST_PAGES)
    async for status in statuses:
        if status.state in _FAILED:
            yield _failed(status.context, status.state, status.description, "", status.target_url)


def _failed(name: str, conclusion: str, title: str | None, summary: str | None, url: str | None) -> FailedCheck:
    return FailedCheck(
        name=storable(name)[:_MOST_WORDS],
        conclusion=conclusion,
        title=storable(title or "")[:_MOST_WORDS],
        summary=storable(summary or "")[:MOST_SUMMARY],
        url=storable(url or "")[:_MOST_WORDS],
    )
