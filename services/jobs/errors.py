"""What can go wrong in the domain; each docstring is what a user may read."""

from __future__ import annotations


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


class NotCancellableError(JobsError):
    """The job or run has ended, or its changeset is being pushed already."""


class LeaseLostError(JobsError):
    """Another attempt has taken over, or the run was cancelled: stop at once and write nothing more."""


class BadCursorError(JobsError):
    """The cursor is not one that this list gave out."""

    def __init__(self) -> None:
        super().__init__("cursor: not one that this list gave out; begin without a cursor")
