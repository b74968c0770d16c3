"""The endpoints of the Cody Batch API by path: the routes and its OpenAPI document are both made from these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from services.gateway.auth import Handler
from services.gateway.dialects.cody_batch.models import (
    CancelledJob,
    CreatedJob,
    Health,
    JobBody,
    JobDetails,
    JobList,
    JobsQuery,
    RepositoriesQuery,
    RepositoryList,
    RepositoryResult,
    Thread,
    ThreadQuery,
)
from services.gateway.dialects.cody_batch.routes import Routes
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.operations import Answer, Operation
from services.gateway.query import Query

_JOB: Final[Mapping[str, str]] = {"jobId": "`job-…`, as it was created"}
_IN_ONE: Final[Mapping[str, str]] = {**_JOB, "repoName": "`owner%2Fname`: the slash is encoded"}
_IN_TWO: Final[Mapping[str, str]] = {**_JOB, "owner": "of `owner/name`", "name": "of `owner/name`"}
_PLACES: Final = (("", "/{repoName}", _IN_ONE), ("BySegments", "/{owner}/{name}", _IN_TWO))


def operations(routes: Routes) -> tuple[Operation, ...]:
    return (*_of_service(routes), *_of_jobs(routes), *_of_repositories(routes))


def _of_service(routes: Routes) -> tuple[Operation, ...]:
    return (
        Operation(
            method="GET",
            path="/health",
            name="getHealth",
            summary="Whether jobs can be taken, and how what they need is",
            handler=routes.health,
            query=LooseQuery,
            is_public=True,
            answers=(Answer(200, "they can", Health), Answer(503, "they cannot", Health)),
        ),
        Operation(
            method="GET",
            path="/repositories",
            name="listRepositories",
            summary="List the repositories that may be worked on",
            handler=routes.repositories,
            query=RepositoriesQuery,
            answers=(Answer(200, "a page of them", RepositoryList),),
        ),
    )


def _of_jobs(routes: Routes) -> tuple[Operation, ...]:
    return (
        Operation(
            method="POST",
            path="/jobs",
            name="createJob",
            summary="Create a job",
            handler=routes.create,
            body=JobBody,
            query=LooseQuery,
            answers=(Answer(201, "created", CreatedJob),),
        ),
        Operation(
            method="GET",
            path="/jobs",
            name="listJobs",
            summary="List jobs, newest first",
            handler=routes.jobs,
            query=JobsQuery,
            answers=(Answer(200, "a page of jobs", JobList),),
        ),
        Operation(
            method="GET",
            path="/jobs/{jobId}",
            name="getJob",
            summary="Get a job with its repositories",
            handler=routes.job,
            query=LooseQuery,
            answers=(Answer(200, "the job", JobDetails),),
            parameters=_JOB,
        ),
        Operation(
            method="POST",
            path="/jobs/{jobId}/cancel",
            name="cancelJob",
            summary="Cancel a job: nothing of it is pushed from then on",
            handler=routes.cancel,
            query=LooseQuery,
            answers=(Answer(200, "accepted, and irrevocable", CancelledJob),),
            parameters=_JOB,
        ),
    )


def _of_repositories(routes: Routes) -> Iterator[Operation]:
    """Each path with the name in one segment goes before the one with two: `/…/owner%2Fname/diff` fits both."""
    of_repository: tuple[tuple[str, str, str, Handler, type[Query], Answer], ...] = (
        ("/diff", "getDiff", "Get a repository's whole diff", routes.diff, LooseQuery, _DIFF),
        ("/claude-thread", "getThread", "Get a repository's message thread", routes.thread, ThreadQuery, _THREAD),
        ("", "getResult", "Get what came of a repository", routes.result, LooseQuery, _RESULT),
    )
    for form, place, parameters in _PLACES:
        for suffix, name, summary, handler, query, answer in of_repository:
            yield Operation(
                method="GET",
                path=f"/jobs/{{jobId}}/repositories{place}{suffix}",
                name=f"{name}{form}",
                summary=summary,
                handler=handler,
                query=query,
                answers=(answer,),
                parameters=parameters,
            )


_DIFF: Final = Answer(200, "as `git diff` prints it", media_type="text/plain")
_THREAD: Final = Answer(200, "the thread", Thread)
_RESULT: Final = Answer(200, "the result", RepositoryResult)
