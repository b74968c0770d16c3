"""The bodies of the Codebot API, in its document's words: they validate requests and make its OpenAPI document."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.contracts.model import Ref, Text, refuse_blank
from services.contracts.rest import MAX_PROMPT_CHARACTERS
from services.contracts.words import Outcome
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.dialects.fields import Moment, OrBlank

MAX_LISTED = 1_000


class TaskStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class SubmitRequest(BaseModel):
    """Fields that the document does not have are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    repository_url: Annotated[Text, Field(min_length=1, max_length=2_000), AfterValidator(refuse_blank)] = Field(
        description="Git URL to clone"
    )
    description: Annotated[
        Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(refuse_blank)
    ] = Field(description="what is to be done")
    ticket_id: Annotated[Annotated[Text, Field(max_length=200)] | None, OrBlank] = Field(
        None, description="external ticket or issue; part of the branch's name"
    )
    ticket_summary: Annotated[Annotated[Text, Field(max_length=250)] | None, OrBlank] = Field(
        None, description="short name for the ticket: the pull request's title, and part of the branch's name"
    )
    test_command: Annotated[Annotated[Text, Field(max_length=2_000)] | None, OrBlank] = Field(
        None, description="run before the change is delivered; default: detected from the repository"
    )
    base_branch: Annotated[Ref | None, OrBlank] = Field(
        None, description="where the work starts and what the pull request is against; default: the remote's own"
    )


class SubmittedTask(BaseModel):
    task_id: UUID
    status: Literal[TaskStatus.PENDING] = TaskStatus.PENDING
    message: str = "Task queued successfully"


class TaskResult(BaseModel):
    pr_url: str | None = Field(description="null: no pull request was opened, see `outcome`")
    branch_name: str | None
    work_dir: str | None = Field(
        description="where the task worked, and what it left there; kept until the pull request is merged, closed or "
        "reviewed, or the task's retention ends. null: not kept any more, or not known"
    )
    outcome: Outcome | None = Field(description="what came of it")
    tests_passed: bool | None = Field(description="null: none were found or run")
    summary: str | None = Field(description="what the agent says of its work")


class TaskTimes(BaseModel):
    task_id: UUID
    status: TaskStatus
    submitted_at: Moment
    started_at: Moment | None
    completed_at: Moment | None


class TaskState(TaskTimes):
    result: TaskResult | None = Field(None, exclude_if=lambda value: value is None, description="of a completed task")
    error: str | None = Field(None, exclude_if=lambda value: value is None, description="of a failed task")


class ListedTask(TaskTimes):
    repository_url: str | None
    description: str = Field(description="its first 100 characters")


class TaskList(BaseModel):
    tasks: list[ListedTask] = Field(description="newest first")
    count: int


class TasksQuery(LooseQuery):
    status: TaskStatus | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = Field(100, description="most tasks")


class Health(BaseModel):
    status: Literal["healthy"] = "healthy"
    review_queue_size: int
    task_queue_size: int


class Error(BaseModel):
    error: str = Field(description="the status code's name")
    message: str = Field(description="what was wrong, and with which field")
