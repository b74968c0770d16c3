"""The closed sets of words that every surface, table and event shares."""

from __future__ import annotations

from enum import StrEnum


class JobKind(StrEnum):
    CODE = "code"
    """Ends in a change."""
    TASK = "task"
    """A conversation; may have no repository."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunState(StrEnum):
    QUEUED = "queued"
    """Waits for a slot, or for its `not_before`."""
    DISPATCHED = "dispatched"
    """A work order is out. Only earlier schedulers left runs so: now they are given to their agents at once."""
    RUNNING = "running"
    """An agent holds the lease, taken up or not."""
    WAITING = "waiting"
    """A task waits for its user; holds no slot and no process."""
    PUBLISHING = "publishing"
    """The changeset is stored and its publication queued or claimed."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """What came of a completed run."""

    DELIVERED = "delivered"
    """Published as asked."""
    STORED = "stored"
    """A patch, as asked."""
    NO_CHANGES = "no_changes"
    UNVERIFIED = "unverified"
    """Its tests failed."""
    ANSWERED = "answered"
    SKIPPED = "skipped"
    """A changeset of the same job name is open on the repository, and the job asked to leave it alone."""


class JobOutcome(StrEnum):
    ALL = "all"
    PARTIAL = "partial"


class ExitReason(StrEnum):
    """Why a failed run failed."""

    MODEL_REFUSED = "model_refused"
    MODEL_REJECTED = "model_rejected"
    """The model service answered that the request can never succeed: key, model name, permission, size."""
    MODEL_UNAVAILABLE = "model_unavailable"
    MAX_TURNS = "max_turns"
    BUDGET_EXHAUSTED = "budget_exhausted"
    TIMED_OUT = "timed_out"
    QUEUE_TIMED_OUT = "queue_timed_out"
    """It stayed queued for longer than its job allows."""
    STUCK = "stuck"
    CONTEXT_EXHAUSTED = "context_exhausted"
    """The conversation no longer fits the model's window."""
    BLOCKED = "blocked"
    """The model itself said that it cannot do what was asked."""
    CLONE_FAILED = "clone_failed"
    PUSH_REJECTED = "push_rejected"
    FORGE_REJECTED = "forge_rejected"
    """The branch was pushed, but the forge would not open its pull request."""
    LOST = "lost"
    INTERNAL = "internal"


class ChangesetState(StrEnum):
    STORED = "stored"
    QUEUED = "queued"
    PUSHING = "pushing"
    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"
    FAILED = "failed"


class Publish(StrEnum):
    """What a job wants done with its changesets."""

    PULL_REQUEST = "pull_request"
    DRAFT = "draft"
    """A pull request that is marked as not ready."""
    BRANCH = "branch"
    """Pushed, without a pull request."""
    NONE = "none"
    """The patch is stored only."""


class OnExisting(StrEnum):
    """What a job does on a repository where a changeset of an earlier job of the same name is open."""

    UPDATE = "update"
    """Takes its place on its branch and in its pull request."""
    REPLACE = "replace"
    """Opens a pull request of its own and closes the other one."""
    SKIP = "skip"
    """Leaves it alone and does nothing."""
    SEPARATE = "separate"
    """Opens a pull request of its own beside it."""


class Checks(StrEnum):
    """What a forge's checks say of a commit, all together."""

    NONE = "none"
    PENDING = "pending"
    PASSING = "passing"
    FAILING = "failing"


class Review(StrEnum):
    NONE = "none"
    APPROVED = "approved"
    CHANGES_REQUESTED = "changes_requested"


class Mergeable(StrEnum):
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """The forge is still finding out."""


class MergeMethod(StrEnum):
    MERGE = "merge"
    SQUASH = "squash"
    REBASE = "rebase"


class Effort(StrEnum):
    """How much a model is to think, as the Messages API's `output_config` has it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class PermissionMode(StrEnum):
    ACCEPT_EDITS = "acceptEdits"
    PLAN = "plan"
    BYPASS_PERMISSIONS = "bypassPermissions"


class OnUnverified(StrEnum):
    """What becomes of a change whose tests fail."""

    STORE = "store"
    DRAFT = "draft"


class Queue(StrEnum):
    CODE = "code"
    TASK = "task"
    REVIEW = "review"
    PUBLISH = "publish"


class EventKind(StrEnum):
    """The dotted name of each payload of the protobuf `Event`."""

    JOB_SUBMITTED = "job.submitted"
    JOB_STARTED = "job.started"
    JOB_CANCEL_REQUESTED = "job.cancel_requested"
    JOB_FINISHED = "job.finished"
    RUN_DISPATCHED = "run.dispatched"
    """Told only by earlier schedulers."""
    RUN_STARTED = "run.started"
    RUN_PREPARED = "run.prepared"
    RUN_REQUEUED = "run.requeued"
    RUN_WAITING = "run.waiting"
    RUN_MESSAGE = "run.message"
    RUN_PUBLISHING = "run.publishing"
    RUN_FINISHED = "run.finished"
    TURN_STARTED = "turn.started"
    TURN_ENDED = "turn.ended"
    TURN_RESET = "turn.reset"
    TOOL_STARTED = "tool.started"
    TOOL_ENDED = "tool.ended"
    USAGE = "usage"
    FILE_CHANGED = "file.changed"
    TESTS_STARTED = "tests.started"
    TESTS_ENDED = "tests.ended"
    LOG = "log"
    DELTA = "delta"
    PROGRESS = "progress"
    CHANGESET_STORED = "changeset.stored"
    CHANGESET_PUSHED = "changeset.pushed"
    CHANGESET_FAILED = "changeset.failed"
    CHANGESET_UPDATED = "changeset.updated"
