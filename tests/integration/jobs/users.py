"""What users do in the model test: they submit, cancel, talk, retry, limit and publish."""

import asyncio
from collections.abc import Awaitable
from uuid import UUID

from services.contracts.rest import CompleteRequest, JobRequest, MessageRequest, RetryRequest
from services.jobs.errors import (
    IdempotencyMismatchError,
    NotCancellableError,
    NotPublishableError,
    NotRetryableError,
    NotWaitingError,
    TooManyQueuedError,
)
from services.jobs.models import Client
from services.jobs.submission import Submitted
from services.runtime.postgres import Record
from tests.integration.jobs.model import FINAL, TO_PUSH
from tests.integration.jobs.world import World

MOST_JOBS = 14


class Users(World):
    """Each method does one thing; where it is the only one that is done, its answer is foretold and compared."""

    async def submit(self, client: Client, request: JobRequest, *, key: str | None, times: int) -> None:
        body = request.model_dump_json()
        submissions = self.domain.submissions
        tries = (submissions.submit(client, request, key=key, body=body.encode()) for _ in range(times))
        answers = await asyncio.gather(*tries, return_exceptions=True)
        before, accepted = self.seen, []
        await self.check()
        known, known_job = self.keys.get((client.name, key or ""), (body, None))
        for answer in answers:
            match answer:
                case Submitted():
                    accepted.append(answer)
                case IdempotencyMismatchError():
                    assert known != body, "the key was refused although it stands for this request"
                case TooManyQueuedError():
                    assert before.limits.queued, "refused without a limit"
                case _:
                    raise answer
        jobs = {answer.job_id for answer in accepted}
        assert self.seen.jobs.keys() - before.jobs.keys() == jobs - {known_job}
        assert len(jobs) == (len(accepted) if key is None else min(1, len(accepted)))
        assert key is None or known_job is None or not accepted or (jobs, known) == ({known_job}, body)
        if key is not None and jobs:
            self.keys[client.name, key] = (body, next(iter(jobs)))
        self._check_queued(client, new=jobs - before.jobs.keys())

    def _check_queued(self, client: Client, *, new: set[UUID]) -> None:
        jobs = [job for job in self.seen.jobs.values() if job["client_id"] == client.id and job["state"] == "queued"]
        most = self.seen.limits.queued_of(client.name)
        assert not new or most is None or len(jobs) <= most, f"{len(jobs)} jobs are queued, {most} may be"

    async def limit(self, wanted: dict[str, object]) -> None:
        """Set the limits, as JSON has them; they may be lower than what is held."""
        await self.domain.set_limits(**wanted)
        await self.check()

    async def cancel_job(self, run: Record) -> None:
        job = self.seen.jobs[run["job_id"]]
        left = [each for each in self.seen.runs_of(job["id"]) if self._can_be_stopped(each)]
        accepts = job["state"] in ("cancelling", "cancelled") or bool(left)
        await self._answers(accepts, NotCancellableError, self.domain.cancelling.request(self._client(run), job["id"]))

    async def cancel_run(self, run: Record) -> None:
        accepts = run["cancel_requested_at"] is not None or self._can_be_stopped(run)
        cancelling = self.domain.cancelling.request_run(self._client(run), run["id"])
        await self._answers(accepts, NotCancellableError, cancelling)

    def _can_be_stopped(self, run: Record) -> bool:
        changeset = self.seen.changeset_of(run["id"])
        return run["state"] not in FINAL and (changeset is None or changeset["state"] != "pushing")

    async def say(self, run: Record) -> None:
        wanted = MessageRequest.model_validate({"text": "go on", "runId": str(run["id"])})
        sending = self.domain.messaging.send(self._client(run), run["job_id"], wanted)
        await self._answers(self._hears(run), NotWaitingError, sending)

    async def end_conversation(self, run: Record) -> None:
        wanted = CompleteRequest.model_validate({"runId": str(run["id"])})
        ending = self.domain.messaging.complete(self._client(run), run["job_id"], wanted)
        await self._answers(self._hears(run), NotWaitingError, ending)

    def _hears(self, run: Record) -> bool:
        return self._is_task(run) and run["state"] not in FINAL and run["cancel_requested_at"] is None

    async def retry_job(self, run: Record) -> None:
        job = self.seen.jobs[run["job_id"]]
        if len(self.seen.jobs) >= MOST_JOBS:
            return
        only = "failed" if run["position"] == 0 else "all"
        accepts = job["finished_at"] is not None and (only == "all" or job["runs_completed"] < job["runs_total"])
        wanted = RetryRequest.model_validate({"only": only, "resume": run["attempt"] % 2 == 1})
        retrying = self.domain.retrying.retry(self._client(run), job["id"], wanted, key=None, body=b"")
        try:
            await self._answers(accepts, NotRetryableError, retrying)
        except TooManyQueuedError:
            assert self.seen.limits.queued, "refused without a limit"

    async def publish_later(self, run: Record) -> None:
        changeset = self.seen.changeset_of(run["id"])
        if changeset is None:
            return
        is_left = changeset["state"] in ("stored", "failed") and run["state"] in FINAL
        accepts = (is_left or changeset["state"] in TO_PUSH) and run["cancel_requested_at"] is None
        request = self.domain.publishing.request(self._client(run), changeset["id"], None)
        await self._answers(accepts, NotPublishableError, request)

    async def _answers(self, accepts: bool, refusal: type[Exception], request: Awaitable[object]) -> None:
        """Ask, and compare the answer with what it must be; when others interfere, either will do."""
        try:
            await request
        except refusal:
            assert not (accepts and self.alone), "refused what has to be accepted"
        else:
            assert accepts or not self.alone, "accepted what has to be refused"
