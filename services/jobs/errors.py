"""What can go wrong in the domain; each docstring is what a user may read."""

from __future__ import annotations

from collections.abc import Sequence


class JobsError(Exception):
    """Base of the domain's errors."""


class NotFoundError(JobsError):
    """There is no such thing for this client."""

    def __init__(self, what: str, identifier: object) -> None:
        super().__init__(f"no {what} {identifier}")


class IdempotencyMismatchError(JobsError):
    """The Idempotency-Key was used with another request body; use a new key for a new request."""

    def __init__(self) -> None:
        super().__init__(str(self.__doc__))


class TooManyQueuedError(JobsError):
    """The client has as many jobs queued as it may."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} jobs of yours are queued already, which is your limit; submit again when some have started"
        )


class NotAllowedError(JobsError):
    """The client may not do this."""


class UnknownClientError(JobsError):
    """A limit names a client that there is not."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"there is no client named {', '.join(names)}")


class SecretsError(JobsError):
    """A secret cannot be stored or kept; the words say what to do about it."""


class RefusedFieldError(JobsError):
    """What a field asks for is not allowed here; ``field`` is its path in the request."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class NotRetryableError(JobsError):
    """The job is not at its end, or has nothing to do again."""


class NotPublishableError(JobsError):
    """The changeset is published already, or must not be."""


class NotWaitingError(JobsError):
    """Nobody can hear the message: the run has ended, or it holds no conversation."""


class NotCancellableError(JobsError):
    """The job or run has ended, or its changeset is being pushed already."""


class LeaseLostError(JobsError):
    """Another attempt has taken over, or the run was cancelled: stop at once and write nothing more."""


class BadCursorError(JobsError):
    """The cursor is not one that this list gave out."""

    def __init__(self) -> None:
        super().__init__("cursor: not one that this list gave out; begin without a cursor")
