"""The bodies of the Cody Batch API, in its document's words: they validate requests and make its OpenAPI document."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from services.contracts.model import Model, Text, refuse_blank
from services.gateway.dialects.cody_batch.settings import MOST_REPOSITORIES
from services.gateway.dialects.dialect import FormQuery, LooseQuery, capped
from services.gateway.dialects.fields import Moment

MOST_PER_PAGE = 100
MAX_NAME = 201


class JobStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RepositoryStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    FAILED = "failed"


def _refuse_unprintable(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("must be `owner/name`, or the name of a registered repository")
    return name


RepositoryName = Annotated[Text, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_refuse_unprintable)]


class JobBody(Model):
    """What a client sends. Fields that the document does not have are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, frozen=True, extra="ignore", strict=True
    )

    name: Annotated[Text, Field(min_length=1, max_length=100), AfterValidator(refuse_blank)]
    description: Annotated[Text, Field(max_length=500)] = ""
    type: Annotated[Text, Field(min_length=1, max_length=50), AfterValidator(refuse_blank)] = Field(
        description="a word of yours, such as `code-pattern-update`"
    )
    prompt: Annotated[Text, Field(min_length=10, max_length=5_000), AfterValidator(refuse_blank)]
    repositories: Annotated[list[RepositoryName], Field(min_length=1, max_length=MOST_REPOSITORIES)] = Field(
        description="`owner/name` each; how many is CODY_MAX_REPOSITORIES"
    )
    create_pull_requests: bool = False


class CreatedJob(Model):
    job_id: str
    name: str
    description: str
    type: str
    prompt: str
    repositories: list[str]
    create_pull_requests: bool
    status: JobStatus
    created_at: Moment


class ListedJob(Model):
    job_id: str
    name: str
    type: str
    status: JobStatus
    created_at: Moment
    repository_count: int
    completed_count: int = Field(description="repositories that ended")


class Pagination(Model):
    page: int
    per_page: int
    total: int
    total_pages: int


class JobList(Model):
    jobs: list[ListedJob] = Field(description="newest first")
    pagination: Pagination


class JobRepository(Model):
    name: str
    status: RepositoryStatus
    pull_request_url: str | None
    were_changes_necessary: bool | None = Field(description="null: not known yet")
    completed_at: Moment | None


class JobDetails(Model):
    job_id: str
    name: str
    description: str
    type: str
    prompt: str
    repositories: list[JobRepository]
    create_pull_requests: bool
    status: JobStatus
    created_at: Moment
    started_at: Moment | None
    completed_at: Moment | None
    cancelled_at: Moment | None = Field(None, exclude_if=lambda value: value is None)
    error: str | None = Field(None, exclude_if=lambda value: value is None, description="of a job that failed")


class CancelledJob(Model):
    job_id: str
    status: Literal[JobStatus.CANCELLED] = JobStatus.CANCELLED
    cancelled_at: Moment


class Change(Model):
    file: str
    diff: str


class ThreadMessage(Model):
    role: Literal["human", "assistant"]
    content: Any = Field(description="text; of a tool call `{tool, input}`, of its result `{result}`")
    timestamp: Moment
    type: Literal["prompt", "response", "tool_call", "tool_result"]


class TokenUsage(Model):
    input: int
    output: int
    cache_creation: int
    cache_read: int
    total: int


class RawMessage(Model):
    """A message as the model service has it; ``turn`` and what follows are null where they are not known."""

    role: Literal["user", "assistant"]
    timestamp: Moment
    content: Any
    turn: int | None
    usage: TokenUsage | None
    duration_ms: int | None
    stop_reason: str | None


class Thread(Model):
    thread_id: str
    messages: list[ThreadMessage]
    token_usage: TokenUsage
    raw_messages: list[RawMessage] | None = Field(
        None, exclude_if=lambda value: value is None, description="of the view `technical`"
    )


class LogLine(Model):
    timestamp: Moment
    level: Literal["INFO", "WARN", "ERROR"]
    message: str


class RepositoryResult(Model):
    job_id: str
    repository_name: str
    status: RepositoryStatus
    pull_request_url: str | None
    were_changes_necessary: bool | None
    started_at: Moment | None
    completed_at: Moment | None
    changes: list[Change]
    claude_conversation: Thread | None = Field(description="null: nothing was said yet")
    logs: list[LogLine]
    error: str | None = Field(None, exclude_if=lambda value: value is None, description="of one that failed")


class ListedRepository(Model):
    id: str
    name: str
    description: str
    url: str


class RepositoryList(Model):
    repositories: list[ListedRepository] = Field(description="by name")
    pagination: Pagination


class Dependencies(Model):
    dynamodb: str = Field(description="the database")
    github: str
    claude: str


class Health(Model):
    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    timestamp: Moment
    dependencies: Dependencies


class ErrorField(Model):
    field: str
    message: str


class ErrorWords(Model):
    message: str
    details: list[ErrorField] | None = Field(None, exclude_if=lambda value: value is None)


class Error(Model):
    error: ErrorWords


def _in_progress(value: Any) -> Any:
    """The document's schema says `processing`, its examples `in-progress`."""
    return JobStatus.IN_PROGRESS if value == "processing" else value


class PageQuery(FormQuery):
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    per_page: Annotated[int, Field(ge=1), capped(MOST_PER_PAGE)] = Field(10, description="100 at most")


class JobsQuery(PageQuery):
    status: Annotated[JobStatus | None, BeforeValidator(_in_progress)] = None


class RepositoriesQuery(PageQuery):
    filter: Annotated[Text, Field(max_length=MAX_NAME)] | None = Field(None, description="a part of the name")


class View(StrEnum):
    STANDARD = "standard"
    TECHNICAL = "technical"
    SIMPLIFIED = "simplified"


class ThreadQuery(LooseQuery):
    view: View = View.STANDARD
    include_tool: bool = Field(default=True, description="with the calls of tools and their results")
