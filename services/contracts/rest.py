"""The models of the native API `/v1`: they validate requests, shape answers and make the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    Field,
    FieldSerializationInfo,
    field_serializer,
    model_validator,
)

from services.contracts.agents import AgentDefaults, Budget, Credentials, MaxTurns
from services.contracts.delivery import TEMPLATE, Checkout, CommitAuthor, PullRequestOptions
from services.contracts.model import BranchName, FieldError, Metadata, Model, Name, Ref, Request, Text, refuse_blank
from services.contracts.words import (
    ChangesetState,
    Checks,
    ExitReason,
    JobKind,
    JobOutcome,
    JobState,
    Mergeable,
    OnExisting,
    OnUnverified,
    Outcome,
    Publish,
    Review,
    RunState,
)

MAX_PROMPT_CHARACTERS = 100_000
MAX_REPOSITORIES = 1_000
MAX_PAGE = 200
FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Of any time that a client gives: at the edges of the calendar, another time zone's cannot be told."""


class RepositoryRequest(Request):
    url: Annotated[Text, Field(min_length=1, max_length=2_000)] = Field(
        description="a Git URL, or an absolute path where the server allows local repositories"
    )
    base_ref: Ref | None = Field(None, description="where the work starts; default: the remote's default branch")
    branch: BranchName | None = Field(
        None, description="the branch to push to; default: one that is made up, or that jobs of this name share"
    )
    checkout: Checkout = Field(default_factory=lambda: Checkout.model_validate({}))


DeadlineSeconds = Annotated[int, Field(ge=1, le=86_400)]


class JobOptions(AgentDefaults):
    publish: Annotated[Publish, Field(strict=False)] = Field(
        Publish.PULL_REQUEST,
        description="what becomes of a change: `pull_request`, `draft` (one marked as not ready), `branch` (pushed "
        "only), or `none` (the patch is stored, and may be published later)",
    )
    on_existing: Annotated[OnExisting, Field(strict=False)] = Field(
        OnExisting.UPDATE,
        description="where a change of an earlier job of yours with the same name is open on the repository: `update` "
        "it in place, `replace` it by a new one and close it, `skip` the repository, or open a `separate` one; a job "
        "without a name opens a separate one",
    )
    pull_request: PullRequestOptions = Field(default_factory=lambda: PullRequestOptions.model_validate({}))
    job_budget: Budget | None = Field(None, description="of all runs together; default: no limit of its own")
    max_parallel: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        None,
        description="most runs of this job at once, from their start to their end: also those that wait for their user "
        "or for their publication; default: no limit of its own",
    )
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(3, description="most attempts a run")
    deadline_seconds: DeadlineSeconds = Field(
        1_800,
        description="wall time that agents may work on a run, over all its attempts, in seconds; time in the queue or "
        "waiting for the user does not count",
    )
    queue_deadline_seconds: Annotated[int, Field(ge=1, le=2_592_000)] | None = Field(
        None, description="a run that waits for an agent for longer fails; default: it may wait for ever"
    )
    idle_limit_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = Field(
        86_400, description="a conversation whose user says nothing for so long is ended"
    )
    commit_message: Annotated[Text, Field(min_length=1, max_length=5_000)] | None = Field(
        None, description=f"{TEMPLATE}; default: the job's name, else the prompt's first line"
    )
    commit_author: CommitAuthor | None = Field(None, description="default: the server's")
    sign_off: bool = Field(default=False, description="add the author's `Signed-off-by:` to the commit message")
    max_identical_calls: Annotated[int, Field(ge=2, le=100)] = Field(
        4,
        description="a run whose model makes the same calls with the same results in so many turns in a row is "
        "`stuck`; it is told one turn before",
    )
    max_malformed_turns: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="so is one with so many turns in a row that have only malformed calls"
    )
    max_cut_offs: Annotated[int, Field(ge=0, le=100)] = Field(
        2,
        description="how often the model may go on from a reply that was cut off at `maxTokens`; in a conversation, in "
        "answer to one message",
    )
    test_command: Annotated[Text, Field(min_length=1, max_length=2_000)] | None = Field(
        None,
        description="run in the worktree before a change is delivered; `auto`: detected from the repository; "
        "default: no tests",
    )
    test_timeout_seconds: Annotated[int, Field(ge=1, le=7_200)] = Field(600, description="wall time of one test run")
    max_fix_attempts: Annotated[int, Field(ge=0, le=10)] = Field(
        2, description="how often failing tests go back to the model"
    )
    on_unverified: Annotated[OnUnverified, Field(strict=False)] = Field(
        OnUnverified.STORE, description="what becomes of a change whose tests still fail: stored, or published as draft"
    )
    keep_worktree_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        None,
        description="keep a completed run's worktree until its change is merged, closed or replaced, at most for so "
        "long; it goes earlier where the disk is full; default: it is removed at once",
    )

    def stored(self) -> dict[str, Any]:
        """As JSON, without what is null, as most is: every change of a job writes its row anew."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class JobRequest(Request):
    prompt: Annotated[Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(refuse_blank)]
    kind: Annotated[JobKind, Field(strict=False)] = JobKind.CODE
    name: Name | None = None
    repositories: Annotated[list[RepositoryRequest], Field(max_length=MAX_REPOSITORIES)] = Field(
        default_factory=list,
        description="one run each; a `task` may have none, and a `code` job whose `options.publish` is `none`: it "
        "begins with an empty folder, and what it writes is stored as a patch",
    )
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(0, description="higher goes first")
    not_before: Annotated[datetime, Field(strict=False)] | None = Field(
        None, description="RFC 3339; the runs stay queued until then"
    )
    metadata: Metadata = Field(default_factory=dict, description="of yours; shown with the job, and never looked at")
    options: JobOptions = Field(default_factory=lambda: JobOptions.model_validate({}))
    credentials: Credentials | None = Field(None, description="secrets for this job alone; kept encrypted, never shown")

    @model_validator(mode="after")
    def _fits_together(self) -> JobRequest:
        if self.kind is JobKind.CODE and not self.repositories and self.options.publish is not Publish.NONE:
            words = "must be `none` for a `code` job without `repositories`: there is nowhere to publish its change"
            raise FieldError("options.publish", words)
        if self.not_before is not None and self.not_before.tzinfo is None:
            raise FieldError("notBefore", "needs a time zone: `2026-01-31T12:00:00Z`")
        if self.not_before is not None and not FIRST_YEAR <= self.not_before.year <= LAST_YEAR:
            raise FieldError("notBefore", f"must be in the years {FIRST_YEAR} to {LAST_YEAR}")
        return self


class RetryOptions(Request):
    """What the new job takes in place of the old one's options; what is null stays as it was."""

    model: Name | None = None
    max_turns: MaxTurns | None = None
    run_budget: Budget | None = None
    job_budget: Budget | None = None
    deadline_seconds: DeadlineSeconds | None = None


class RetryRequest(Request):
    only: Literal["all", "failed"] = Field(
        "all", description="`failed`: only the runs that did not complete; `all`: every run of the job"
    )
    resume: bool = Field(
        default=False, description="begin from the checkpoints of the old runs; default: from the beginning"
    )
    options: RetryOptions = Field(default_factory=lambda: RetryOptions.model_validate({}))


class MessageRequest(Request):
    text: Annotated[Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(refuse_blank)]
    run_id: Annotated[UUID, Field(strict=False)] | None = Field(
        None, description="which run; needed where the job has several"
    )
    interrupt: bool = Field(
        default=False,
        description="deliver it at once, breaking off what the model is saying; default: at its turn's end",
    )


class CompleteRequest(Request):
    run_id: Annotated[UUID, Field(strict=False)] | None = Field(
        None, description="which run; default: every run that is not final"
    )


class RunCounts(Model):
    """How many of the job's runs are where; the sum is `total`."""

    total: int
    started: int = Field(description="runs that were ever given to an agent")
    active: int = Field(description="running, waiting or publishing")
    completed: int
    failed: int
    cancelled: int


class Job(Model):
    id: UUID
    name: str | None
    kind: JobKind
    state: JobState
    outcome: JobOutcome | None
    prompt: str
    priority: int
    metadata: dict[str, str]
    options: JobOptions
    runs: RunCounts
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    not_before: datetime | None
    retry_of: UUID | None


class RunUsage(Model):
    turns: int
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cost_usd: float = Field(description="by list prices; without the unpriced turns")
    unpriced_turns: int = Field(description="turns with a model that has no known price")


class FileStat(Model):
    path: str
    change: str
    insertions: int
    deletions: int
    binary: bool


class Changeset(Model):
    """What a run delivers; it has a life of its own after the run."""

    id: UUID
    job_id: UUID
    run_id: UUID
    state: ChangesetState
    repository: str = Field(description="empty: its run has none, and it cannot be published")
    branch: str
    base_sha: str
    base_branch: str | None
    commit_sha: str
    files: list[FileStat]
    insertions: int
    deletions: int
    url: str | None = Field(description="where it can be reviewed")
    error: str | None
    publish: Publish = Field(description="as what it is published, or would be")
    is_draft: bool = Field(description="published as a draft, or to be")
    verified: bool | None = Field(description="whether its tests passed; null: none were run")
    forge: str | None = Field(description="`github` or `local`; null: not published")
    number: int | None = Field(description="of its pull request; null: it has none")
    superseded_by: UUID | None = Field(description="the changeset that took its place")
    head_sha: str | None = Field(description="what its branch was at when the forge was last asked")
    checks: Checks
    review: Review
    mergeable: Mergeable
    merge_sha: str | None
    observed_at: datetime | None = Field(description="when the forge was last asked")
    created_at: datetime
    published_at: datetime | None
    closed_at: datetime | None = Field(description="merged or closed")

    @field_serializer("url")
    def _absolute(self, url: str | None, info: FieldSerializationInfo) -> str | None:
        """The local forge's pages are the gateway's own: it knows under which ``origin`` its client sees it."""
        origin = (info.context or {}).get("origin", "")
        return f"{origin}{url}" if url is not None and url.startswith("/") else url


class Run(Model):
    id: UUID
    job_id: UUID
    position: int = Field(description="0-based place among the job's repositories")
    repository: str | None
    base_ref: str | None
    base_sha: str | None
    branch: str | None
    state: RunState
    outcome: Outcome | None
    exit_reason: ExitReason | None
    error: str | None
    summary: str | None
    attempt: int
    agent: str | None
    usage: RunUsage
    changeset: Changeset | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None


class Page(Model):
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last")


class JobPage(Page):
    items: list[Job]


class RunPage(Page):
    items: list[Run]


class ChangesetPage(Page):
    items: list[Changeset]


class Message(Model):
    """What a user said to a run."""

    run_id: UUID
    number: int = Field(description="1, 2, 3 … within the run")
    text: str
    interrupt: bool
    created_at: datetime
    read_at: datetime | None = Field(description="when it became part of the conversation")


class TranscriptMessage(Model):
    number: int
    attempt: int
    role: Literal["user", "assistant"]
    content: Any = Field(description="content blocks as the Messages API has them")
    created_at: datetime


class Transcript(Model):
    run_id: UUID
    messages: list[TranscriptMessage]


class LogLine(Model):
    number: int = Field(description="the durable number of the event within the job")
    time: datetime
    level: str
    message: str


class Logs(Model):
    run_id: UUID
    lines: list[LogLine]


class ProblemField(Model):
    field: str = Field(description="path of the field: `repositories[0].url`")
    message: str


class Problem(Model):
    """RFC 9457 problem details, `application/problem+json`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ProblemField] = Field(default_factory=list)


class Health(Model):
    status: Literal["healthy", "degraded"]
    service: str
    checks: dict[str, str]
