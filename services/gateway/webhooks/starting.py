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
from services.jobs.submission import NewJob, Submissions
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
        if reading.has_begun:
            return Started(reading.job_id, is_new=False)
        if not (reading.is_known or may_start):
            raise ProblemError(404, f"no job was started for issue {number} of {full_name}")
        issue = await self._vcs.issue(url, number)
        if issue.is_pull_request or issue.state != _OPEN:
            raise ProblemError(404, f"{full_name} has no open issue {number}")
        request = issue_request(url, full_name, issue, read_at=reading.read_at)
        is_new = False
        if not reading.is_known:
            job = replace(NewJob.of(client, request, key=None, body=b""), id=reading.job_id)
            is_new = await self._start(about, job, said=acknowledgement(job.id))
        # Another one may have read the issue before this did, and made the job after.
        is_changed = await self.items.amend(reading, request)
        log.info("issue", repository=full_name, number=number, job=str(reading.job_id), new=is_new, changed=is_changed)
        return Started(reading.job_id, is_new=is_new)

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
        if reading.is_known:
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
        if reading.is_known:
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
        job_id = reading.job_id
        sealed = self._submissions.sealed_anew(change.sealed, of=change.job_id, to=job_id) if change.sealed else None
        job = NewJob(about.client, request, runs=[following_run(change)], id=job_id, sealed=sealed, is_review=True)
        is_new = await self._start(about, job, said=None)
        log.info(about.kind.value, repository=about.repository, number=about.number, job=str(job_id), new=is_new)
        return Started(job_id, is_new=is_new)

    async def _start(self, about: Subject, job: NewJob, *, said: str | None) -> bool:
        """The job before the work item, which refers to it; both are made once, however often this is done."""
        await self._submissions.accept(job)
        self._commands.submitted(job.id)
        return await self.items.add(about, job.id, said=said)
