"""Asks the gateway for jobs all through the faults, cancels some, follows some, and remembers every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from quarterdeck import Client
from quarterdeck.errors import ApiError, ConflictError, UnavailableError
from tests.acceptance.stacks import PROMPT
from tests.chaos.plan import PlannedJob

PATIENCE = timedelta(minutes=3)
"""How long a client tries a request again: longer than anything is away."""
_AGAIN_SECONDS = 0.25
GAP = "gap"
"""The kind that stands for durable events which the gateway no longer has."""


@dataclass
class Submission:
    """One job as its client knows it. ``answers``: the job of each request that was accepted. ``refusals``: answers
    that no retry would change. ``gave_up``: requests that had no answer in all the client's patience.
    """

    name: str
    answers: list[UUID] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    gave_up: int = 0
    job_cancel_accepted: bool = False
    run_cancel_accepted: UUID | None = None
    cancels_refused: int = 0
    followed: list[tuple[str, int]] | None = None
    """Kind and number of each durable event or gap that its follower got; None: nobody followed it."""


class Load:
    """``client``: made with ``PATIENCE``. ``origins``: what the jobs' indices mean."""

    def __init__(self, client: Client, origins: Sequence[Path], jobs: Sequence[PlannedJob]) -> None:
        self.submissions: list[Submission] = []
        self._client = client
        self._origins = origins
        self._jobs = jobs
        self._tasks: list[asyncio.Task[None]] = []
        self._twins = 0

    async def submit_all(self) -> None:
        """Send each job at its time; returns when the last has been sent, not answered."""
        for job in self._jobs:
            await asyncio.sleep(job.pause_seconds)
            self._begin(self._carry_out(job))

    def submit_twin(self) -> None:
        """Send one more job, twice at once with one key: for the moment at which the gateway dies."""
        self._twins += 1
        submission = self._new(f"chaos twin {self._twins}")
        self._begin(self._submit(submission, [self._origins[self._twins % len(self._origins)]], times=2))

    async def finish(self) -> None:
        """Wait until every request has its answer and every follower its end; raises what went wrong in our own."""
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Give up on whatever is still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _new(self, name: str) -> Submission:
        self.submissions.append(Submission(name))
        return self.submissions[-1]

    async def _carry_out(self, job: PlannedJob) -> None:
        submission = self._new(f"chaos {job.number}")
        origins = [self._origins[index] for index in job.origins]
        await self._submit(submission, origins, times=2 if job.is_sent_twice else 1)
        if not submission.answers:
            return
        async with asyncio.TaskGroup() as both:
            if job.is_watched:
                both.create_task(self._follow(submission))
            if job.cancelled is not None:
                both.create_task(self._cancel(submission, job))

    async def _submit(self, submission: Submission, origins: Sequence[Path], *, times: int) -> None:
        await asyncio.gather(*(self._submit_once(submission, origins) for _ in range(times)))

    async def _submit_once(self, submission: Submission, origins: Sequence[Path]) -> None:
        repositories = [str(origin) for origin in origins]
        try:
            job = await self._client.submit(
                PROMPT, repositories, name=submission.name, idempotency_key=f"key of {submission.name}"
            )
        except UnavailableError:
            submission.gave_up += 1
        except ApiError as error:
            submission.refusals.append(str(error))
        else:
            submission.answers.append(job.id)

    async def _cancel(self, submission: Submission, job: PlannedJob) -> None:
        """Cancel as planned; asked again until there is an answer, since a cancel twice is one."""
        await asyncio.sleep(job.cancel_after_seconds)
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while True:
                try:
                    await self._cancel_once(submission, job)
                except UnavailableError:
                    await asyncio.sleep(_AGAIN_SECONDS)
                except ConflictError:  # it has ended, or is being pushed
                    submission.cancels_refused += 1
                    return
                else:
                    return

    async def _cancel_once(self, submission: Submission, job: PlannedJob) -> None:
        job_id = submission.answers[0]
        if job.cancelled == "job":
            await self._client.cancel_job(job_id)
            submission.job_cancel_accepted = True
            return
        runs = [run async for run in self._client.runs(job_id)]
        run = runs[job.cancelled_run % len(runs)]
        await self._client.cancel_run(run.id)
        submission.run_cancel_accepted = run.id

    async def _follow(self, submission: Submission) -> None:
        async with aclosing(self._client.events(submission.answers[0], patience=PATIENCE)) as events:
            followed = [(event.kind, event.number) async for event in events]
        submission.followed = [each for each in followed if each[1] or each[0] == GAP]  # without deltas
