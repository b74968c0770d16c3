"""What an agent holds, reads and hands over: the values that the repository takes and gives. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from services.contracts.agents import ClientSettings
from services.contracts.delivery import Checkout
from services.contracts.rest import JobOptions
from services.contracts.words import JobKind
from services.jobs.unit import Draft
from services.runtime.ids import uuid7


@dataclass(frozen=True)
class Client:
    """A tenant: whose jobs these are."""

    id: UUID
    name: str
    is_operator: bool = False
    """May change what concerns everybody."""


@dataclass(frozen=True)
class Hold:
    """Proof of holding a run: which attempt, and its fencing token."""

    run_id: UUID
    job_id: UUID
    attempt: int
    token: UUID


@dataclass(frozen=True)
class StoredMessage:
    """A transcript's message as the exact bytes that were and will be sent."""

    number: int
    role: str
    body: bytes


@dataclass(frozen=True)
class SavedTree:
    """The working tree as a patch against the base, with what the model had read of which version."""

    patch: bytes | None
    """None, where one is stored: no tool wrote, so the patch before it still stands."""
    read_versions: Mapping[str, str]
    is_behind: bool = False
    """The worktree was too large to be stored: what was changed since the last stored patch is only in the transcript.
    It stays so until a patch is stored again.
    """


@dataclass(frozen=True)
class ClaimedRun:
    """All that an agent needs in order to begin, or to go on where another attempt stopped."""

    hold: Hold
    kind: JobKind
    prompt: str
    name: str | None
    options: JobOptions
    repository: str | None
    base_ref: str | None
    base_sha: str | None
    branch: str | None
    turns: int
    attempts_spent: int
    seconds_left: float
    """Wall time that agents may still work on it."""
    created_at: datetime
    messages: Sequence[StoredMessage]
    tree: SavedTree | None
    client_id: UUID
    client_settings: ClientSettings
    sealed: Sequence[bytes]
    """Encrypted secrets: the job's, then the client's, as far as there are any."""
    head: bytes | None
    """System prompt and tools as the first request had them, byte by byte."""
    spent: Spent
    is_budgeted: bool
    """Whether somebody has set a budget over its client, or over all, so that each request has to be reserved."""
    outputs: Mapping[str, bytes]
    """Long outputs of tools, by name, that the model can read."""
    copied: int = 0
    """How many of ``messages`` are those of another run, from whose checkpoint this one goes on."""
    checkout: Checkout = field(default_factory=lambda: Checkout.model_validate({}))
    skipped_for: str | None = None
    """What an earlier job of its name has open on the repository, where the job leaves such a repository alone."""

    @property
    def is_continued(self) -> bool:
        """Whether it goes on from another run's checkpoint, and nothing of its own is stored yet."""
        return 0 < self.copied == len(self.messages)

    @property
    def has_worktree(self) -> bool:
        """Whether a vcs keeps what it changes; not of a conversation without a repository, which changes nothing."""
        return self.repository is not None or self.kind is JobKind.CODE


@dataclass(frozen=True)
class Usage:
    """What one turn used, in tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0

    @property
    def total(self) -> int:
        """What budgets in tokens count."""
        return self.input_tokens + self.output_tokens + self.cache_read_input_tokens + self.cache_creation_input_tokens


@dataclass(frozen=True)
class ModelUse:
    """What one request to a model used."""

    tokens: Usage
    model: str
    cost_microusd: int | None = None
    """None: the model has no known price."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The model service's own usage object."""


@dataclass(frozen=True)
class VoidUse:
    """What a request used whose reply is in no transcript: thrown away, or cut off with its attempt."""

    use: ModelUse
    turn: int | None = None
    """Which turn of the run, from 1, the reply ends if it is stored after all; None: it will not be."""
    id: UUID = field(default_factory=uuid7, compare=False)


@dataclass(frozen=True)
class Spent:
    """What a run has used so far, over all its attempts."""

    tokens: int = 0
    microusd: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """What one step of a turn adds; all of it is stored in one transaction."""

    messages: Sequence[StoredMessage] = ()
    tree: SavedTree | None = None
    """Set where a tool wrote, or read what it had not read before."""
    usage: ModelUse | None = None
    """Set where the step ends a request to the model: counts one turn, and gives its reservation back."""
    events: Sequence[Draft] = ()
    read_through: int = 0
    """The highest number of the user's messages that ``messages`` has taken up; 0: none."""
    head: bytes | None = None
    """With the first messages of a run: what its first request begins with."""
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    """Long outputs of tools that this step made, by name."""


@dataclass(frozen=True)
class Standing:
    """What a checkpoint's answer tells of the run."""

    has_unread: bool
    """Its user has said something that the transcript does not have yet."""
    is_budgeted: bool
    """As in `ClaimedRun`, by now."""


@dataclass(frozen=True)
class Commit:
    """Everything that the run's commit is made of, and its SHA."""

    sha: str
    author_name: str
    author_email: str
    time: datetime
    message: str
    patch: bytes
    files: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """`FileStat`s as the REST model has them, with snake_case names."""
    notes: Sequence[str] = ()
    """Sentences on what is in the worktree and no part of the patch."""

    @property
    def insertions(self) -> int:
        return sum(stat["insertions"] for stat in self.files)

    @property
    def deletions(self) -> int:
        return sum(stat["deletions"] for stat in self.files)
