"""The methods of Jobs: each reads its request, calls the use case that its twin in the REST API calls, and answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.contracts import rest
from services.contracts.v1 import jobs_pb2, jobs_pb2_grpc
from services.gateway.context import Gateway
from services.gateway.query import JobsQuery, PageQuery
from services.gateway.rpc.calls import caller
from services.gateway.rpc.errors import Context
from services.gateway.rpc.messages import fingerprint, read, read_id, read_key, reply
from services.gateway.rpc.watching import watch
from services.jobs.reading import JobFilter
from services.jobs.submission import Submitted


class JobsServicer(jobs_pb2_grpc.JobsServicer):
    """To be served behind ``Calls``, which knows the caller and turns errors into statuses."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def SubmitJob(self, request: jobs_pb2.SubmitJobRequest, _: Context) -> jobs_pb2.SubmittedJob:  # noqa: N802  the proto names it, here and below
        key = read_key(request.idempotency_key if request.HasField("idempotency_key") else None)
        wanted = read(request, rest.JobRequest, without={"idempotency_key"})
        submissions = self._gateway.submissions
        return await self._accepted(await submissions.submit(caller(), wanted, key=key, body=fingerprint(request)))

    async def RetryJob(self, request: jobs_pb2.RetryJobRequest, _: Context) -> jobs_pb2.SubmittedJob:  # noqa: N802
        job_id = read_id(request.job_id, "job")
        key = read_key(request.idempotency_key if request.HasField("idempotency_key") else None)
        wanted = read(request, rest.RetryRequest, without={"job_id", "idempotency_key"})
        retrying = self._gateway.retrying
        return await self._accepted(await retrying.retry(caller(), job_id, wanted, key=key, body=fingerprint(request)))

    async def _accepted(self, submitted: Submitted) -> jobs_pb2.SubmittedJob:
        if not submitted.replayed:
            self._gateway.commands.submitted(submitted.job_id)
        job = submitted.job or await self._gateway.reading.job(caller(), submitted.job_id)
        return jobs_pb2.SubmittedJob(job=reply(job, jobs_pb2.Job), replayed=submitted.replayed)

    async def GetJob(self, request: jobs_pb2.GetJobRequest, _: Context) -> jobs_pb2.Job:  # noqa: N802
        job = await self._gateway.reading.job(caller(), read_id(request.job_id, "job"))
        return reply(job, jobs_pb2.Job)

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, _: Context) -> jobs_pb2.JobPage:  # noqa: N802
        query = read(request, JobsQuery)
        wanted = JobFilter(
            states=tuple(query.state) if query.state else None,
            kind=query.kind,
            name=query.name,
            repository=query.repository,
            created_after=query.created_after,
            created_before=query.created_before,
        )
        page = await self._gateway.reading.jobs(caller(), wanted, limit=query.limit, cursor=query.cursor)
        return reply(page, jobs_pb2.JobPage)

    async def GetRun(self, request: jobs_pb2.GetRunRequest, _: Context) -> jobs_pb2.Run:  # noqa: N802
        run = await self._gateway.reading.run(caller(), read_id(request.run_id, "run"))
        return reply(run, jobs_pb2.Run)

    async def ListRuns(self, request: jobs_pb2.ListRunsRequest, _: Context) -> jobs_pb2.RunPage:  # noqa: N802
        job_id = read_id(request.job_id, "job")
        query = read(request, PageQuery, without={"job_id"})
        page = await self._gateway.reading.runs(caller(), job_id, limit=query.limit, cursor=query.cursor)
        return reply(page, jobs_pb2.RunPage)

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, _: Context) -> jobs_pb2.Job:  # noqa: N802
        job_id = read_id(request.job_id, "job")
        await self._gateway.cancelling.request(caller(), job_id)
        self._gateway.commands.cancel_requested(job_id)
        return reply(await self._gateway.reading.job(caller(), job_id), jobs_pb2.Job)

    async def CancelRun(self, request: jobs_pb2.CancelRunRequest, _: Context) -> jobs_pb2.Run:  # noqa: N802
        run_id = read_id(request.run_id, "run")
        job_id = await self._gateway.cancelling.request_run(caller(), run_id)
        self._gateway.commands.cancel_requested(job_id, run_id)
        return reply(await self._gateway.reading.run(caller(), run_id), jobs_pb2.Run)

    async def SendMessage(self, request: jobs_pb2.SendMessageRequest, _: Context) -> jobs_pb2.Message:  # noqa: N802
        job_id = read_id(request.job_id, "job")
        wanted = read(request, rest.MessageRequest, without={"job_id"})
        message = await self._gateway.messaging.send(caller(), job_id, wanted)
        self._gateway.commands.message_sent(job_id, message.run_id)
        return reply(message, jobs_pb2.Message)

    async def CompleteJob(self, request: jobs_pb2.CompleteJobRequest, _: Context) -> jobs_pb2.Job:  # noqa: N802
        job_id = read_id(request.job_id, "job")
        wanted = read(request, rest.CompleteRequest, without={"job_id"})
        for run_id in await self._gateway.messaging.complete(caller(), job_id, wanted):
            self._gateway.commands.message_sent(job_id, run_id)
        return reply(await self._gateway.reading.job(caller(), job_id), jobs_pb2.Job)

    def WatchJob(self, request: jobs_pb2.WatchJobRequest, _: Context) -> AsyncIterator[jobs_pb2.WatchedEvent]:  # noqa: N802
        return watch(self._gateway, caller(), request)
