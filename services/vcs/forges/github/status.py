"""What GitHub says of a change, in our words: state, checks, reviews, whether it can be merged."""

from collections.abc import Iterable
from typing import Final

from services.contracts.words import Checks, Mergeable, Review
from services.vcs.errors import ForgeRefusedError
from services.vcs.forges import ChangeState, ChangeStatus
from services.vcs.forges.github import answers
from services.vcs.forges.github.answers import CheckRun, CombinedStatus, Pull
from services.vcs.forges.github.calls import RepositoryCalls
from services.vcs.forges.github.pulls import Pulls

_GOOD: Final = frozenset({"success", "neutral", "skipped"})
_VERDICTS: Final = frozenset({"APPROVED", "CHANGES_REQUESTED", "DISMISSED"})
"""Reviews that replace their author's earlier verdict; a comment or a review not yet sent does not."""
_STATUS_WORDS: Final = {"success": Checks.PASSING, "pending": Checks.PENDING}


async def status_of(pulls: Pulls, pull: Pull) -> ChangeStatus:
    calls, number = pulls.calls, pull.number
    # GitHub closes a pull request whose branch is deleted: an open one's is there.
    head_sha = pull.head.sha if pull.is_open else await pulls.branch_sha(pull.head.ref)
    reviews = [review async for review in calls.pages(answers.Review, "pulls", number, "reviews")]
    return ChangeStatus(
        state=_state(pull),
        url=pull.html_url,
        number=number,
        is_draft=pull.draft,
        head_sha=head_sha,
        checks=await checks_at(calls, pull.head.sha),
        review=review_word(reviews),
        mergeable=_mergeable(pull),
        merge_sha=(pull.merge_commit_sha or "") if pull.is_merged else "",
    )


async def branch_status(pulls: Pulls, branch: str, url: str) -> ChangeStatus:
    """Of a branch without a pull request: open for as long as it is there."""
    head_sha = await pulls.branch_sha(branch)
    if not head_sha:
        return ChangeStatus(state=ChangeState.CLOSED, url=url)
    checks = await checks_at(pulls.calls, head_sha)
    return ChangeStatus(state=ChangeState.OPEN, url=url, head_sha=head_sha, checks=checks)


async def checks_at(calls: RepositoryCalls, sha: str) -> Checks:
    """Check runs and commit statuses in one word. What the credentials may not read counts as not there: a token can
    be good for pull requests and see no checks.
    """
    return checks_word([*await _runs(calls, sha), *await _statuses(calls, sha)])


def checks_word(words: Iterable[Checks]) -> Checks:
    """One that fails decides, then one that is not over."""
    seen = set(words)
    return next((word for word in (Checks.FAILING, Checks.PENDING, Checks.PASSING) if word in seen), Checks.NONE)


def run_word(run: CheckRun) -> Checks:
    if run.status != "completed":
        return Checks.PENDING
    return Checks.PASSING if run.conclusion in _GOOD else Checks.FAILING


def combined_word(status: CombinedStatus) -> Checks:
    if not status.total_count:
        return Checks.NONE
    return _STATUS_WORDS.get(status.state, Checks.FAILING)


def review_word(reviews: Iterable[answers.Review]) -> Review:
    """``reviews``: oldest first. Each reviewer's last verdict counts."""
    last = {review.user.login if review.user else "": review.state for review in reviews if review.state in _VERDICTS}
    if "CHANGES_REQUESTED" in last.values():
        return Review.CHANGES_REQUESTED
    return Review.APPROVED if "APPROVED" in last.values() else Review.NONE


async def _runs(calls: RepositoryCalls, sha: str) -> list[Checks]:
    runs = calls.pages(CheckRun, "commits", sha, "check-runs", key="check_runs")
    try:
        return [run_word(run) async for run in runs]
    except ForgeRefusedError:
        return []


async def _statuses(calls: RepositoryCalls, sha: str) -> list[Checks]:
    try:
        return [combined_word(await calls.get(CombinedStatus, "commits", sha, "status"))]
    except ForgeRefusedError:
        return []


def _state(pull: Pull) -> ChangeState:
    if pull.is_merged:
        return ChangeState.MERGED
    return ChangeState.OPEN if pull.is_open else ChangeState.CLOSED


def _mergeable(pull: Pull) -> Mergeable:
    if pull.mergeable is None:
        return Mergeable.UNKNOWN
    return Mergeable.YES if pull.mergeable else Mergeable.NO
