"""Starts jobs for what happened on GitHub, each once: whoever does this again finds the job and the work item there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from services.contracts.rest import JobRequest
from services.gateway.commands import Commands
from services.gateway.problems import ProblemError
from services.gateway.vcs_client import VcsClient
from services.gateway.webhooks.happenings import FailedSuite, Remark
from services.gateway.webhooks.requests import checks_request, following_run, issue_request, review_request
from services.jobs.answers import WorkKind, acknowledgement
from services.jobs.models import Client
from services.jobs.submission import NewJob, Submissions, keyed
from services.jobs.work_items import OpenChangeset, Reading, Subject, WorkItems
from services.runtime.telemetry import logger

log = logger("gateway.webhooks")

FORGE = "github"
_OPEN = "open"


@dataclass(frozen=True)
class Started:
    job_id: UUID
    is_new: bool
    """False: it was there already; its prompt was brought up to date where nobody had begun with it."""


class Starting:
    """Every method raises ``ProblemError`` as ``VcsClient`` does, and as ``Submissions.accept`` does."""

    def __init__(self, items: WorkItems, submissions: Submissions, vcs: VcsClient, commands: Commands) -> None:
        self.items = items
        self._submissions = submissions
        self._vcs = vcs
        self._commands = commands

    async def issue(self, client: Client, url: str, full_name: str, number: int, *, may_start: bool = True) -> Started:
        """Have the issue done, as it is on the forge now.

        ``may_start``: else only a job that waits is brought up to date. Raises ``ProblemError``: 404 for an issue that
        is none or is closed, and where there is no job for it and none may be started.
        """
        about = Subject(client, WorkKind.ISSUE, url, number)
        reading = await self.items.begin(about)
        job_id, is_new = reading.job_id, False
        if job_id is not None and reading.has_begun:
            return Started(job_id, is_new)
        if job_id is None and not may_start:
            raise ProblemError(404, f"no job was started for issue {number} of {full_name}")
        issue = await self._vcs.issue(url, number)
        if issue.is_pull_request or issue.state != _OPEN:
            raise ProblemError(404, f"{full_name} has no open issue {number}")
        request = issue_request(url, full_name, issue, read_at=reading.read_at)
        if job_id is None:
            job_id, is_new = await self._start(about, NewJob.of(client, request, key=None, body=b""), reading)
        # Another one may have read the issue before this did, and made the job after.
        is_changed = await self.items.amend(job_id, request, read_at=reading.read_at)
        log.info("issue", repository=full_name, number=number, job=str(job_id), new=is_new, changed=is_changed)
        return Started(job_id, is_new)

    async def review(self, remark: Remark, change: OpenChangeset) -> Started | None:
        """Have somebody's remark on a pull request of ours followed or answered. None: it is closed by now."""
        about = Subject(
            change.client,
            WorkKind.REVIEW,
            change.repository,
            remark.number,
            remark.subject,
            in_reply_to=remark.thread,
            changeset_id=change.id,
        )
        reading = await self.items.begin(about)
        if reading.job_id is not None:
            return Started(reading.job_id, is_new=False)
        pull = await self._vcs.issue(change.repository, remark.number)
        if pull.state != _OPEN:
            return None
        request = review_request(change, remark.repository.full_name, remark, pull, read_at=reading.read_at)
        return await self._follow(about, change, request, reading)

    async def checks(self, suite: FailedSuite, change: OpenChangeset, *, most: int) -> Started | None:
        """Have failed checks of a pull request of ours repaired. None: nothing failed, or ``most`` times was tried."""
        about = Subject(
            change.client, WorkKind.CHECK, change.repository, change.number, suite.sha, changeset_id=change.id
        )
        reading = await self.items.begin(about)
        if reading.job_id is not None:
            return Started(reading.job_id, is_new=False)
        if await self.items.count(about) >= most:
            log.info("no more runs for failed checks", repository=suite.repository.full_name, number=change.number)
            return None
        failed = await self._vcs.failed_checks(change.repository, suite.sha)
        pull = await self._vcs.issue(change.repository, change.number)
        if not failed or pull.state != _OPEN:
            return None
        full_name = suite.repository.full_name
        request = checks_request(change, full_name, suite.sha, failed, pull, read_at=reading.read_at)
        return await self._follow(about, change, request, reading)

    async def _follow(self, about: Subject, change: OpenChangeset, request: JobRequest, reading: Reading) -> Started:
        job = NewJob(about.client, request, runs=[following_run(change)], is_review=True)
        if change.sealed:
            job = replace(job, sealed=self._submissions.sealed_anew(change.sealed, of=change.job_id, to=job.id))
        job_id, is_new = await self._start(about, job, reading)
        log.info(about.kind.value, repository=about.repository, number=about.number, job=str(job_id), new=is_new)
        return Started(job_id, is_new)

    async def _start(self, about: Subject, job: NewJob, reading: Reading) -> tuple[UUID, bool]:
        """The job before the work item, which refers to it; both are made once, however often this is done."""
        submitted = await self._submissions.accept(replace(job, key=keyed(reading.key, b"")))
        self._commands.submitted(submitted.job_id)
        said = acknowledgement(submitted.job_id) if about.kind is WorkKind.ISSUE else None
        return submitted.job_id, await self.items.add(about, submitted.job_id, said=said)
