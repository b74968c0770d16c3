"""The calls with one answer, by the generated client: what REST does and refuses, and nobody else's jobs."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from services.contracts.v1 import jobs_pb2 as pb
from services.jobs.reading import Reading
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import Scheduler
from tests.integration.gateway.rpc.conftest import Stub, refusal

LATER = datetime(2030, 1, 31, 12, tzinfo=UTC)
REPOSITORIES = [pb.RepositoryRequest(url=f"https://forge.example/{number}.git") for number in range(5)]

WRONG_REQUESTS: dict[str, tuple[pb.SubmitJobRequest, str]] = {
    "no prompt": (pb.SubmitJobRequest(kind="task"), "prompt"),
    "blank prompt": (pb.SubmitJobRequest(kind="task", prompt=" \n"), "prompt"),
    "NUL": (pb.SubmitJobRequest(kind="task", prompt="a\0b"), "prompt"),
    "wrong kind": (pb.SubmitJobRequest(prompt="x", kind="chore"), "kind"),
    "no repository": (pb.SubmitJobRequest(prompt="x"), "options.publish"),
    "priority": (pb.SubmitJobRequest(prompt="x", kind="task", priority=101), "priority"),
    "zero turns": (
        pb.SubmitJobRequest(prompt="x", kind="task", options=pb.JobOptions(max_turns=0)),
        "options.maxTurns",
    ),
    "below zero": (
        pb.SubmitJobRequest(prompt="x", kind="task", options=pb.JobOptions(max_parallel=-1)),
        "options.maxParallel",
    ),
    "second repository": (
        pb.SubmitJobRequest(prompt="x", repositories=[REPOSITORIES[0], pb.RepositoryRequest(base_ref="main")]),
        "repositories[1].url",
    ),
    "ref like an option": (
        pb.SubmitJobRequest(
            prompt="x", repositories=[pb.RepositoryRequest(url="https://a.invalid/b.git", base_ref="--x")]
        ),
        "repositories[0].baseRef",
    ),
    "year 1": (
        pb.SubmitJobRequest(prompt="x", kind="task", not_before=Timestamp(seconds=-62_135_596_800)),
        "notBefore",
    ),
}


def task(**fields: Any) -> pb.SubmitJobRequest:
    return pb.SubmitJobRequest(prompt="say hello", kind="task", **fields)


async def submit(stub: Stub, request: pb.SubmitJobRequest | None = None) -> str:
    submitted: pb.SubmittedJob = await stub.SubmitJob(request or task())
    return submitted.job.id


async def count(database: Database) -> int:
    async with database.connection() as connection:
        found: int = await connection.fetchval("SELECT count(*) FROM jobs")
    return found


async def test_a_submitted_job_is_what_rest_shows(stub: Stub, gateway: httpx.AsyncClient):
    request = pb.SubmitJobRequest(
        prompt="über 🚀",
        name="n",
        priority=-5,
        repositories=REPOSITORIES[:2],
        not_before=Timestamp(seconds=int(LATER.timestamp())),
        options=pb.JobOptions(max_turns=7, publish="none"),
    )
    submitted = await stub.SubmitJob(request)
    job = submitted.job
    assert not submitted.replayed
    assert (job.prompt, job.name, job.kind, job.state, job.priority) == ("über 🚀", "n", "code", "queued", -5)
    assert (job.options.max_turns, job.options.publish, job.options.max_attempts) == (7, "none", 3)
    assert not job.options.HasField("max_parallel")
    assert (job.runs.total, job.not_before.ToDatetime(UTC)) == (2, LATER)
    assert job == await stub.GetJob(pb.GetJobRequest(job_id=job.id))
    assert job == ParseDict((await gateway.get(f"/v1/jobs/{job.id}")).json(), pb.Job())


async def test_a_code_job_that_is_only_stored_needs_no_repository(stub: Stub):
    submitted = await stub.SubmitJob(pb.SubmitJobRequest(prompt="x", options=pb.JobOptions(publish="none")))
    (run,) = (await stub.ListRuns(pb.ListRunsRequest(job_id=submitted.job.id))).items
    assert (submitted.job.kind, run.repository) == ("code", "")


async def test_wrong_fields_are_named_as_rest_names_them_and_nothing_is_created(
    stub: Stub, gateway: httpx.AsyncClient, database: Database
):
    for case, (request, field) in WRONG_REQUESTS.items():
        code, problem = await refusal(stub.SubmitJob(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT, case
        assert problem["errors"][0]["field"] == field, (case, problem)
        assert problem == (await gateway.post("/v1/jobs", json=MessageToDict(request))).json(), case
    assert await count(database) == 0


async def test_an_instant_that_is_none_is_named(stub: Stub, database: Database):
    for wrong in (Timestamp(seconds=10**15), Timestamp(nanos=-1)):
        code, problem = await refusal(stub.SubmitJob(task(not_before=wrong)))
        assert (code, problem["errors"][0]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "notBefore")
    assert await count(database) == 0


async def test_a_thousand_wrong_fields_make_an_answer_that_arrives(stub: Stub):
    request = pb.SubmitJobRequest(prompt="x", repositories=[pb.RepositoryRequest(base_ref="-")] * 1_000)
    code, problem = await refusal(stub.SubmitJob(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "and 1997 more" in problem["detail"]
    assert problem["errors"][1]["field"] == "repositories[0].baseRef"


async def test_a_request_beyond_the_limit_of_a_body_is_refused(stub: Stub, database: Database):
    code, _ = await refusal(stub.SubmitJob(task(name="x" * 5_000_000)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await count(database) == 0


async def test_an_idempotency_key_makes_one_job(stub: Stub, other_stub: Stub, database: Database):
    first = await stub.SubmitJob(task(idempotency_key="k"))
    again = await stub.SubmitJob(task(idempotency_key="k"))
    assert (first.replayed, again.replayed, again.job) == (False, True, first.job)
    code, problem = await refusal(stub.SubmitJob(task(idempotency_key="k", priority=1)))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert (problem["status"], problem["errors"][0]["field"]) == (422, "idempotencyKey")
    theirs = await other_stub.SubmitJob(task(idempotency_key="k"))
    assert not theirs.replayed
    assert await count(database) == 2


async def test_an_idempotency_key_that_is_none_is_refused(stub: Stub):
    for wrong in ("", "x" * 256, "tab\there", "h\xe4"):
        code, problem = await refusal(stub.SubmitJob(task(idempotency_key=wrong)))
        assert (code, problem["errors"][0]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "idempotencyKey")


async def pages(call: Callable[[Any], Any], request: pb.ListJobsRequest | pb.ListRunsRequest) -> list[list[str]]:
    found: list[list[str]] = []
    while True:
        page = await call(request)
        found.append([item.id for item in page.items])
        if not page.next_cursor:
            return found
        request.cursor = page.next_cursor


async def test_pages_of_jobs_and_runs_miss_nothing(stub: Stub):
    jobs = [await submit(stub) for _ in range(4)]
    jobs.append(await submit(stub, pb.SubmitJobRequest(prompt="x", repositories=REPOSITORIES)))
    newest = jobs[::-1]
    assert await pages(stub.ListJobs, pb.ListJobsRequest(limit=2)) == [newest[:2], newest[2:4], newest[4:]]
    runs = (await stub.ListRuns(pb.ListRunsRequest(job_id=jobs[-1]))).items
    assert [(run.position, run.repository) for run in runs] == [(n, each.url) for n, each in enumerate(REPOSITORIES)]
    by_two = await pages(stub.ListRuns, pb.ListRunsRequest(job_id=jobs[-1], limit=2))
    assert by_two == [[run.id for run in runs][at : at + 2] for at in (0, 2, 4)]
    assert await stub.GetRun(pb.GetRunRequest(run_id=runs[3].id)) == runs[3]


async def test_jobs_are_filtered(stub: Stub):
    code = await submit(stub, pb.SubmitJobRequest(prompt="x", name="a name", repositories=REPOSITORIES[:1]))
    middle = datetime.now(UTC)
    other = await submit(stub)
    await stub.CancelJob(pb.CancelJobRequest(job_id=other))

    async def found(**filters: Any) -> list[str]:
        return [job.id for job in (await stub.ListJobs(pb.ListJobsRequest(**filters))).items]

    assert await found(state=["queued"]) == [code]
    assert await found(state=["queued", "cancelling"]) == [other, code]
    assert await found(kind="task") == [other]
    assert await found(name="a name") == [code]
    assert await found(repository=REPOSITORIES[0].url) == [code]
    assert await found(created_after=middle) == [other]
    assert await found(created_before=middle) == [code]


async def test_a_wrong_filter_is_named(stub: Stub):
    wrong: dict[str, pb.ListJobsRequest] = {
        "state[0]": pb.ListJobsRequest(state=["done"]),
        "limit": pb.ListJobsRequest(limit=0),
        "cursor": pb.ListJobsRequest(cursor="nonsense"),
        "createdAfter": pb.ListJobsRequest(created_after=Timestamp(seconds=10**12)),
    }
    for field, request in wrong.items():
        code, problem = await refusal(stub.ListJobs(request))
        assert (code, problem["errors"][0]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_cancel_is_accepted_once_and_refused_after_the_end(
    stub: Stub, gateway: httpx.AsyncClient, scheduler: Scheduler
):
    job = await submit(stub)
    for _ in range(2):
        assert (await stub.CancelJob(pb.CancelJobRequest(job_id=job))).state == "cancelling"
    ended = await submit(stub)
    await scheduler.finish(ended)
    code, problem = await refusal(stub.CancelJob(pb.CancelJobRequest(job_id=ended)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert problem == (await gateway.post(f"/v1/jobs/{ended}/cancel")).json()


async def test_one_run_is_cancelled(stub: Stub):
    job = await submit(stub, pb.SubmitJobRequest(prompt="x", repositories=REPOSITORIES[:2]))
    first, second = (await stub.ListRuns(pb.ListRunsRequest(job_id=job))).items
    assert (await stub.CancelRun(pb.CancelRunRequest(run_id=first.id))).HasField("cancel_requested_at")
    assert not (await stub.GetRun(pb.GetRunRequest(run_id=second.id))).HasField("cancel_requested_at")


async def test_an_ended_job_is_done_again(stub: Stub, scheduler: Scheduler, database: Database):
    job = await submit(stub, task(name="n"))
    code, _ = await refusal(stub.RetryJob(pb.RetryJobRequest(job_id=job)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    await scheduler.finish(job)
    wanted = pb.RetryJobRequest(job_id=job, only="all", idempotency_key="again")
    first, replayed = await stub.RetryJob(wanted), await stub.RetryJob(wanted)
    assert (first.job.retry_of, first.job.name, first.replayed) == (job, "n", False)
    assert (replayed.job.id, replayed.replayed) == (first.job.id, True)
    code, problem = await refusal(stub.RetryJob(pb.RetryJobRequest(job_id=job, only="some")))
    assert (code, problem["errors"][0]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "only")
    assert await count(database) == 2


async def test_a_task_is_spoken_to_and_a_code_job_is_not(stub: Stub):
    job = await submit(stub)
    (run,) = (await stub.ListRuns(pb.ListRunsRequest(job_id=job))).items
    for number, run_id in ((1, ""), (2, run.id)):
        message = await stub.SendMessage(pb.SendMessageRequest(job_id=job, run_id=run_id, text="go on", interrupt=True))
        assert (message.run_id, message.number, message.text, message.interrupt) == (run.id, number, "go on", True)
    assert (await stub.CompleteJob(pb.CompleteJobRequest(job_id=job))).id == job
    code, problem = await refusal(stub.SendMessage(pb.SendMessageRequest(job_id=job, text=" ")))
    assert (code, problem["errors"][0]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "text")
    mute = await submit(stub, pb.SubmitJobRequest(prompt="x", repositories=REPOSITORIES[:1]))
    code, _ = await refusal(stub.SendMessage(pb.SendMessageRequest(job_id=mute, text="go on")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION


async def test_what_is_anothers_or_nothing_is_not_found(stub: Stub, other_stub: Stub):
    job = await submit(stub)
    (run,) = (await stub.ListRuns(pb.ListRunsRequest(job_id=job))).items
    assert [job.id for job in (await other_stub.ListJobs(pb.ListJobsRequest())).items] == []
    for of_job, of_run in ((job, run.id), (str(uuid4()), str(uuid4())), ("x" * 1_000, "{" + run.id + "}"), ("", "")):
        for call in (
            other_stub.GetJob(pb.GetJobRequest(job_id=of_job)),
            other_stub.ListRuns(pb.ListRunsRequest(job_id=of_job)),
            other_stub.CancelJob(pb.CancelJobRequest(job_id=of_job)),
            other_stub.RetryJob(pb.RetryJobRequest(job_id=of_job)),
            other_stub.SendMessage(pb.SendMessageRequest(job_id=of_job, text="x")),
            other_stub.CompleteJob(pb.CompleteJobRequest(job_id=of_job)),
            other_stub.GetRun(pb.GetRunRequest(run_id=of_run)),
            other_stub.CancelRun(pb.CancelRunRequest(run_id=of_run)),
        ):
            code, problem = await refusal(call)
            assert (code, problem["status"]) == (grpc.StatusCode.NOT_FOUND, 404)
    assert (await stub.GetJob(pb.GetJobRequest(job_id=job))).state == "queued"


async def test_a_bug_tells_nothing_of_the_inside(stub: Stub, monkeypatch: pytest.MonkeyPatch):
    async def fail(*_: Any) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr(Reading, "job", fail)
    call = stub.GetJob(
        pb.GetJobRequest(job_id=str(uuid4())), metadata=(*stub._metadata, ("x-request-id", "of-the-caller"))
    )
    code, problem = await refusal(call)
    assert code is grpc.StatusCode.INTERNAL
    assert "of-the-caller" in problem["detail"]
    assert "the inside" not in str(problem) + await call.debug_error_string()
    assert dict(await call.trailing_metadata())["x-request-id"] == "of-the-caller"
