"""The models of the repositories that a client keeps, of their mirrors, and of what forges have."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from services.contracts.model import FieldError, Model, Name, Ref, Request, Text, refuse_blank
from services.contracts.rest import Page

MAX_FOUND = 1_000
DEFAULT_FOUND = 100
MAX_PATTERNS = 50
MAX_NAMED = 100
MAX_OWNERS = 10

Url = Annotated[Text, Field(min_length=1, max_length=2_000)]
Description = Annotated[Text, Field(min_length=1, max_length=2_000), AfterValidator(refuse_blank)]
Owner = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
FullName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}$")]
NamePattern = Annotated[Text, Field(min_length=1, max_length=200)]
Topic = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,49}$")]
SearchWords = Annotated[Text, Field(min_length=1, max_length=250), AfterValidator(refuse_blank)]
Found = Annotated[int, Field(ge=1, le=MAX_FOUND)]


class RepositoryRegistration(Request):
    name: Name
    url: Url = Field(description="a Git URL without credentials, or an absolute path where the server allows those")
    base_ref: Ref | None = Field(None, description="where work starts; default: the remote's default branch")
    description: Description | None = None


class RepositoryChange(Request):
    """What is left out stays as it is; null takes a base ref or a description away."""

    name: Name | None = None
    url: Url | None = None
    base_ref: Ref | None = None
    description: Description | None = None

    @model_validator(mode="after")
    def _keeps_name_and_url(self) -> RepositoryChange:
        for name in ("name", "url"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise FieldError(name, "must not be null; leave it out to keep it as it is")
        return self


class Repository(Model):
    """What a client keeps under a name of its own."""

    id: UUID
    name: str
    url: str
    base_ref: str | None
    description: str | None
    created_at: datetime
    updated_at: datetime


class RepositoryPage(Page):
    items: list[Repository]


class RescuedWork(Model):
    """What one of the client's runs had not delivered when its worktree was taken away."""

    ref: str
    run_id: UUID
    commit_sha: str
    time: datetime | None


class MirrorState(StrEnum):
    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"
    """The node did not say."""


class Mirror(Model):
    """What one vcs node says of its mirror."""

    node: str
    state: MirrorState
    bytes: int
    used_at: datetime | None
    fetched_at: datetime | None
    worktrees: int
    rescued: list[RescuedWork]
    error: str | None = Field(description="why it is not known")


class RepositoryStatus(Repository):
    mirrors: list[Mirror] = Field(description="one a living vcs node")
    mirrors_error: str | None = Field(description="why nothing at all is known of mirrors")


class SyncState(StrEnum):
    DONE = "done"
    RUNNING = "running"
    """It goes on: ask again for its end."""
    ABSENT = "absent"
    """The node has no mirror, and was not asked to make one."""
    FAILED = "failed"


class NodeSync(Model):
    node: str
    state: SyncState
    phase: str | None = Field(description="Git's own word for what it was doing last")
    percent: int | None
    default_branch: str | None
    head_sha: str | None = Field(description="of the default branch")
    bytes: int | None = Field(description="what the mirror takes on the disk")
    path: str | None = Field(None, exclude=True)
    """The mirror's folder on the node; none of `/v1`'s business."""
    error: str | None


class Sync(Model):
    repository_id: UUID
    nodes: list[NodeSync]


class ForgeRepository(Model):
    full_name: str
    clone_url: str
    default_branch: str | None
    description: str | None
    is_private: bool
    is_archived: bool
    is_fork: bool
    topics: list[str]
    language: str | None
    size_kb: int


class Discovery(Model):
    items: list[ForgeRepository] = Field(description="in the forge's order")


class ImportRequest(Request):
    """Either names, or what to look for as `GET /v1/repositories/discover` does."""

    names: Annotated[list[FullName], Field(min_length=1, max_length=MAX_NAMED)] | None = Field(
        None, description="`owner/name` each, of ten owners at most; archived ones and forks too"
    )
    owner: Owner | None = None
    match: Annotated[list[NamePattern], Field(max_length=MAX_PATTERNS)] = Field(default_factory=list)
    topic: Annotated[list[Topic], Field(max_length=MAX_PATTERNS)] = Field(default_factory=list)
    q: SearchWords | None = None
    archived: bool = False
    forks: bool = False
    limit: Found = DEFAULT_FOUND

    @model_validator(mode="after")
    def _says_which(self) -> ImportRequest:
        searches = bool(self.owner or self.match or self.topic or self.q)
        if self.names is not None and searches:
            raise FieldError("names", "give either `names`, or `owner`, `match`, `topic` and `q`")
        if self.names is None and not searches:
            raise FieldError("names", "give `names`, or at least one of `owner`, `match`, `topic` and `q`")
        if len({name.partition("/")[0].casefold() for name in self.names or ()}) > MAX_OWNERS:
            raise FieldError("names", f"must be of at most {MAX_OWNERS} owners; ask once for each of them")
        return self


class Imported(Model):
    imported: list[Repository]
    skipped: list[str] = Field(description="`owner/name` of those whose name or URL was there already")
    missing: list[str] = Field(description="asked for by name, and not found on the forge")
