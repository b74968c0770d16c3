"""The models of the native API `/v1`: they validate requests, shape answers and make the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    SecretStr,
    field_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel

from services.contracts.text import is_storable
from services.contracts.words import (
    ChangesetState,
    Effort,
    ExitReason,
    JobKind,
    JobOutcome,
    JobState,
    OnUnverified,
    Outcome,
    PermissionMode,
    Publish,
    RunState,
)

MAX_PROMPT_CHARACTERS = 100_000
MAX_REPOSITORIES = 1_000
MAX_PAGE = 200
MAX_KEY_CHARACTERS = 4_000
SET = "(set)"
"""Stands for a secret that is stored, wherever it would be shown."""
FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Of any time that a client gives: at the edges of the calendar, another time zone's cannot be told."""


def _refuse_unstorable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must not contain NUL or lone surrogates")
    return text


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[str, AfterValidator(_refuse_unstorable)]
CommandPattern = Annotated[Text, Field(min_length=1, max_length=500), AfterValidator(_refuse_blank)]
Name = Annotated[Text, Field(min_length=1, max_length=200), AfterValidator(_refuse_blank)]
Ref = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+@-]*$",
        description="a branch, a tag or a commit SHA",
    ),
]


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Request(Model):
    """What a client sends: unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, frozen=True, extra="forbid", strict=True
    )


class RepositoryRequest(Request):
    url: Annotated[Text, Field(min_length=1, max_length=2_000)] = Field(
        description="a Git URL, or an absolute path where the server allows local repositories"
    )
    base_ref: Ref | None = Field(None, description="where the work starts; default: the remote's default branch")


class Both(Model):
    """What a client may read, change and send back: unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", strict=True)


class Budget(Both):
    """What may be used at most; what is null is not limited."""

    usd: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None
    tokens: Annotated[int, Field(ge=0, le=10**12)] | None = Field(
        None, description="input and output together, cached input included"
    )


MaxTurns = Annotated[int, Field(ge=1, le=1_000)]
DeadlineSeconds = Annotated[int, Field(ge=1, le=86_400)]


class AgentDefaults(Both):
    """How runs are worked on. What is null is taken from the next wider level: job, client, server."""

    model: Name | None = Field(None, description="the model to use")
    max_tokens: Annotated[int, Field(ge=256, le=128_000)] | None = Field(None, description="most tokens of one reply")
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="left out, with a line in the run's log, where the model does not take it"
    )
    effort: Annotated[Effort, Field(strict=False)] | None = Field(
        None, description="how much the model is to think; left out where the model does not take it"
    )
    max_turns: MaxTurns | None = Field(None, description="most model requests a run; 100 where nobody says otherwise")
    system_prompt: Annotated[Text, Field(min_length=1, max_length=50_000)] | None = Field(
        None, description="instructions added to the agent's own"
    )
    base_url: Annotated[Text, Field(min_length=1, max_length=2_000)] | None = Field(
        None, description="address of the model service; one of those that the server allows"
    )
    permission_mode: Annotated[PermissionMode, Field(strict=False)] | None = Field(
        None,
        description="`acceptEdits` (default): files may be changed, and the allowed commands run; `plan`: nothing is "
        "changed, the run ends in a plan; `bypassPermissions`: any command may be run",
    )
    allowed_commands: Annotated[list[CommandPattern], Field(max_length=100)] | None = Field(
        None, description="what `acceptEdits` lets the agent run: a command, or its beginning followed by ` *`"
    )
    network: bool | None = Field(None, description="whether commands may use the network; default: no")
    run_budget: Budget | None = Field(None, description="of each run; 5 USD where nobody says otherwise")
    allow_unpriced: bool | None = Field(
        None, description="whether a model without a known price may be used under a budget in USD; default: no"
    )


class JobOptions(AgentDefaults):
    publish: Annotated[Publish, Field(strict=False)] = Field(
        Publish.PULL_REQUEST,
        description="what becomes of a change: pushed with a pull request, or only stored",
    )
    job_budget: Budget | None = Field(None, description="of all runs together; default: no limit of its own")
    max_parallel: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        None, description="most runs of this job at once; default: no limit of its own"
    )
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(3, description="most attempts a run")
    deadline_seconds: DeadlineSeconds = Field(
        1_800,
        description="wall time that agents may work on a run, over all its attempts, in seconds; time in the queue or "
        "waiting for the user does not count",
    )
    queue_deadline_seconds: Annotated[int, Field(ge=1, le=2_592_000)] | None = Field(
        None, description="a run that stays queued for longer fails; default: it may wait for ever"
    )
    idle_limit_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = Field(
        86_400, description="a conversation whose user says nothing for so long is ended"
    )
    commit_message: Annotated[Text, Field(min_length=1, max_length=5_000)] | None = Field(
        None, description="default: the job's name, else the prompt's first line"
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


def _refuse_odd_key(key: SecretStr) -> SecretStr:
    if not all("!" <= character <= "~" for character in key.get_secret_value()):
        raise ValueError("must be visible ASCII characters, without spaces or line ends")
    return key


ApiKey = Annotated[
    SecretStr, Field(min_length=1, max_length=MAX_KEY_CHARACTERS, strict=False), AfterValidator(_refuse_odd_key)
]


class Credentials(Request):
    """Secrets of a job: never shown, and kept encrypted."""

    anthropic_api_key: ApiKey | None = None


class KeyRequest(Request):
    anthropic_api_key: ApiKey


def _refuse_odd_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or "@" in parts.netloc or parts.fragment or any(not "!" <= each <= "~" for each in address):
        raise ValueError("must be an http or https address without user, password and fragment")
    return address


SecretName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
SecretText = Annotated[Text, Field(max_length=8_000)]
SecretHeader = Annotated[str, Field(max_length=8_000, pattern=r"^[!-~]([ -~]*[!-~])?$")]
_SECRET_VALUES = f"secret values: kept encrypted and shown as `{SET}`, which, sent back, keeps what is stored"


class StdioServer(Both):
    """An MCP server that is started in the sandbox of each run."""

    type: Literal["stdio"]
    command: Annotated[list[CommandPattern], Field(min_length=1, max_length=100)]
    env: Annotated[dict[SecretName, SecretText], Field(max_length=100)] = Field(
        default_factory=dict, description=_SECRET_VALUES
    )
    network: bool = False


class HttpServer(Both):
    """An MCP server that speaks streamable HTTP."""

    type: Literal["http"]
    url: Annotated[Text, Field(min_length=1, max_length=2_000), AfterValidator(_refuse_odd_address)]
    headers: Annotated[dict[HeaderName, SecretHeader], Field(max_length=100)] = Field(
        default_factory=dict, description=_SECRET_VALUES
    )


McpServer = Annotated[StdioServer | HttpServer, Field(discriminator="type")]
ServerName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,29}$")]


class ClientSettings(AgentDefaults):
    """What a client's runs take where their job says nothing."""

    mcp_servers: Annotated[dict[ServerName, McpServer], Field(max_length=20)] = Field(default_factory=dict)
    anthropic_api_key: Literal["(set)"] | None = Field(
        None, description=f"`{SET}` where a key is stored; to be read only: what a request says here changes nothing"
    )


class JobRequest(Request):
    prompt: Annotated[Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_refuse_blank)]
    kind: Annotated[JobKind, Field(strict=False)] = JobKind.CODE
    name: Name | None = None
    repositories: Annotated[list[RepositoryRequest], Field(max_length=MAX_REPOSITORIES)] = Field(
        default_factory=list, description="one run each; a `task` may have none, a `code` job needs one"
    )
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(0, description="higher goes first")
    not_before: Annotated[datetime, Field(strict=False)] | None = Field(
        None, description="RFC 3339; the runs stay queued until then"
    )
    options: JobOptions = Field(default_factory=lambda: JobOptions.model_validate({}))
    credentials: Credentials | None = Field(None, description="secrets for this job alone; kept encrypted, never shown")

    @model_validator(mode="after")
    def _code_needs_a_repository(self) -> JobRequest:
        if self.kind is JobKind.CODE and not self.repositories:
            raise FieldError("repositories", "a `code` job needs at least one repository")
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
    text: Annotated[Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_refuse_blank)]
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


class FieldError(ValueError):
    """A rule over several fields failed; ``field`` is the path to name in the answer."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class RunCounts(Model):
    """How many of the job's runs are where; the sum is `total`."""

    total: int
    started: int = Field(description="runs that an agent has ever claimed")
    active: int = Field(description="started or dispatched, and not final")
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
    repository: str
    branch: str
    base_sha: str
    base_branch: str | None
    commit_sha: str
    files: list[FileStat]
    insertions: int
    deletions: int
    url: str | None = Field(description="where it can be reviewed")
    error: str | None
    is_draft: bool = Field(description="published as a draft, or to be")
    verified: bool | None = Field(description="whether its tests passed; null: none were run")
    created_at: datetime
    published_at: datetime | None

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


Slots = Annotated[int, Field(ge=0, le=100_000)]


class NamedLimits(Both):
    default: Slots | None = Field(None, description="for each that is not named; null: no limit")
    by_name: Annotated[dict[str, Slots], Field(max_length=10_000)] = Field(default_factory=dict)


class QueueLimits(Both):
    code: Slots | None = None
    task: Slots | None = None
    review: Slots | None = None


class Limits(Both):
    """How many runs may hold a slot at once. What is null or missing has no limit of its own."""

    fleet: Slots | None = Field(None, description="in all; the agents' capacity bounds it too")
    queues: QueueLimits = Field(default_factory=lambda: QueueLimits.model_validate({}))
    client: NamedLimits = Field(default_factory=lambda: NamedLimits.model_validate({}), description="by client's name")
    repository: NamedLimits = Field(
        default_factory=lambda: NamedLimits.model_validate({}), description="by URL, as jobs give it"
    )
    queued_jobs: NamedLimits = Field(
        default_factory=lambda: NamedLimits.model_validate({}),
        description="how many jobs of a client may be queued at once, by client's name; more are refused",
    )


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
