"""What can go wrong between the client and the gateway. Each message says what was wrong and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.contracts.rest import Problem, ProblemField


class QuarterdeckError(Exception):
    """The base of everything that the client raises."""


class NotConfiguredError(QuarterdeckError):
    """The client does not know which gateway to talk to, or with which key."""


class ProtocolError(QuarterdeckError):
    """What answered does not speak the API that this client knows."""


class WaitTimeoutError(QuarterdeckError):
    """The caller's own deadline passed; whatever was waited for goes on."""


class UnavailableError(QuarterdeckError):
    """Nothing answered, or only that it cannot serve now. Trying again later may help."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ApiError(QuarterdeckError):
    """The gateway refused a request; ``problem`` is its own word on it."""

    def __init__(self, status: int, problem: Problem, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{problem.title}: {problem.detail} (HTTP {status})")
        self.status = status
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds


class UnauthorizedError(ApiError):
    """The API key is missing, unknown, or may not do this."""


class NotFoundError(ApiError):
    """There is no such job, run or changeset, or not for this client."""


class ConflictError(ApiError):
    """The state of the thing forbids it."""


class RateLimitedError(ApiError):
    """The client has used up what it may; ``retry_after_seconds`` says when there is more."""


class InvalidRequestError(ApiError):
    """The request is wrong; ``errors`` names each field."""

    @property
    def errors(self) -> list[ProblemField]:
        return self.problem.errors

    def __str__(self) -> str:
        fields = "".join(f"\n  {error.field}: {error.message}" for error in self.errors)
        return f"{self.problem.title}: {self.problem.detail}{fields}"
