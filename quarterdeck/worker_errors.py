"""What can go wrong between a client and a Worker API."""

from __future__ import annotations

from enum import StrEnum

from quarterdeck.errors import QuarterdeckError


class Code(StrEnum):
    """What the API answers (the first six), and what happens on the way to it."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    UNAUTHORIZED = "UNAUTHORIZED"
    NOT_FOUND = "NOT_FOUND"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    UNAVAILABLE = "UNAVAILABLE"
    """Nothing answered, or the connection broke more often than it is made again."""
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    """What answered does not speak the Worker API."""
    SESSION_ERROR = "SESSION_ERROR"
    """The session ended with an `error` event; the message is the event's."""
    ALREADY_READING = "ALREADY_READING"
    """A later loop has taken the session over."""
    INVALID_ARGUMENT = "INVALID_ARGUMENT"


class WorkerError(QuarterdeckError):
    """``code``: one of ``Code``, or one that a later server has. ``status``: of the answer, where there was one."""

    def __init__(
        self, code: str, message: str, *, status: int | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_seconds = retry_after_seconds
