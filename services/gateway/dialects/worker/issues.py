"""GitHub issues of the Worker API: its webhook, and an issue that is named in a request."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from aiohttp import web
from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.dialects.worker.session_models import FULL_NAME, RepositoryName
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.problems import FieldProblemError
from services.gateway.query import read_query
from services.gateway.webhooks.operation import webhook_operation
from services.gateway.webhooks.settings import WORKER

WEBHOOK_PATH: Final = "/webhooks/github"

Number = Annotated[int, Field(ge=1, le=2**31 - 1)]


class IssueRepository(BaseModel):
    """``name``, or its other names, is owner/name; without one it is read from ``url``."""

    name: RepositoryName | None = Field(
        None, validation_alias=AliasChoices("full_name", "fullName", "name"), description="owner/name"
    )
    url: Annotated[str, Field(max_length=2_000)] | None = Field(
        None, validation_alias=AliasChoices("url", "clone_url", "html_url")
    )


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class NamedIssue(BaseModel):
    number: Number


class ProcessIssueRequest(BaseModel):
    repository: Annotated[IssueRepository, BeforeValidator(_named)] = Field(
        description="owner/name, or an object with `name` or `url`"
    )
    issue_number: Number | None = Field(None, validation_alias=AliasChoices("issueNumber", "issue_number"))
    issue: NamedIssue | None = None


class ProcessedIssue(BaseModel):
    success: bool = True
    message: str
    job_id: UUID = Field(serialization_alias="jobId")
    repository: str
    issue_number: int = Field(serialization_alias="issueNumber")


async def process_issue(request: web.Request, github_server: str) -> web.StreamResponse:
    read_query(request, LooseQuery)
    wanted, _ = await read_body(request, ProcessIssueRequest)
    number = wanted.issue_number or (wanted.issue.number if wanted.issue else None)
    if number is None:
        raise FieldProblemError("issueNumber", "is required: the number of the issue")
    full_name, url = _place(wanted.repository, github_server)
    started = await gateway_of(request).webhook.start_issue(request[CLIENT], url, full_name, number)
    message = "The issue is being processed" if started.is_new else "There is a job for this issue already"
    answer = ProcessedIssue(message=message, job_id=started.job_id, repository=full_name, issue_number=number)
    return json_response(request, answer, status=202 if started.is_new else 200)


def _place(repository: IssueRepository, github_server: str) -> tuple[str, str]:
    """owner/name and the Git URL. An address elsewhere than on ``github_server`` is not taken."""
    server = github_server.rstrip("/")
    full_name = repository.name or _name_in(repository.url or "", server)
    return full_name, f"{server}/{full_name}.git"


def _name_in(url: str, server: str) -> str:
    name = url.removeprefix(f"{server}/").removesuffix("/").removesuffix(".git")
    if not url.startswith(f"{server}/") or not FULL_NAME.fullmatch(name):
        host = urlsplit(server).netloc
        raise FieldProblemError("repository", f"must be owner/name, or have the address of a repository on {host}")
    return name


def operations(github_server: str) -> tuple[Operation, ...]:
    """``github_server``: the address that repositories are on which are given by name."""
    return (
        webhook_operation(WORKER, WEBHOOK_PATH, LooseQuery),
        Operation(
            method="POST",
            path="/container/process-issue",
            name="processIssue",
            summary="Process a GitHub issue, as its webhook does",
            handler=partial(process_issue, github_server=github_server),
            query=LooseQuery,
            body=ProcessIssueRequest,
            answers=(
                Answer(202, "a job was made for the issue", ProcessedIssue),
                Answer(200, "there was one already", ProcessedIssue),
            ),
        ),
    )
