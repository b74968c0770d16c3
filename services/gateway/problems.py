"""Whatever goes wrong with a request, as an RFC 9457 problem document. Nothing of the inside is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from aiohttp import web

from services.contracts.rest import Problem, ProblemField
from services.gateway.tracing import REQUEST_ID, Handler
from services.jobs.clients import ClientStateError, NameTakenError
from services.jobs.errors import (
    BadCursorError,
    IdempotencyMismatchError,
    JobsError,
    NotAllowedError,
    NotCancellableError,
    NotFoundError,
    NotPublishableError,
    NotRetryableError,
    NotWaitingError,
    RefusedFieldError,
    SecretsError,
    TooManyQueuedError,
    UnknownClientError,
)
from services.jobs.repositories import RefusedUrlError
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("gateway.problems")

RETRY_AFTER_SECONDS = 2
_STATUS: Mapping[type[JobsError], int] = {
    NotFoundError: 404,
    IdempotencyMismatchError: 422,
    NotCancellableError: 409,
    NotRetryableError: 409,
    NotPublishableError: 409,
    NotWaitingError: 409,
    NotAllowedError: 403,
    SecretsError: 409,
    NameTakenError: 409,
    ClientStateError: 409,
    RefusedUrlError: 422,
    UnknownClientError: 400,
    TooManyQueuedError: 429,
    BadCursorError: 400,
}
_FIELD: Mapping[type[JobsError], str] = {
    IdempotencyMismatchError: "Idempotency-Key",
    BadCursorError: "cursor",
    NameTakenError: "name",
    RefusedUrlError: "url",
}


class ProblemError(Exception):
    """A request that cannot be served, in the words of the answer."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[ProblemField] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers or {}


class FieldProblemError(ProblemError):
    """400 for one field, header or parameter."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(400, f"{field}: {message}", errors=[ProblemField(field=field, message=message)])


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every exception of ``handler`` with a problem document."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _answer(_of_http(request, error))
    except ProblemError as error:
        return _answer(error)
    except JobsError as error:
        return _answer(_of_domain(error))
    except StoreUnavailableError as error:
        log.warning("Postgres is away", error=str(error))
        return _answer(_away())
    except Exception:
        log.exception("request failed", method=request.method, path=request.path)
        return _answer(_bug(request))


def _of_domain(error: JobsError) -> ProblemError:
    if isinstance(error, RefusedFieldError):
        return FieldProblemError(error.field, error.message)
    status = _STATUS.get(type(error))
    if status is None:
        raise error
    field = _FIELD.get(type(error))
    errors = [ProblemField(field=field, message=str(error))] if field else []
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == HTTPStatus.TOO_MANY_REQUESTS else None
    return ProblemError(status, str(error), errors=errors, headers=headers)


def _of_http(request: web.Request, error: web.HTTPException) -> ProblemError:
    allow = error.headers.get("Allow")
    details = {
        404: f"there is nothing at {request.path}; /openapi.json lists what there is",
        405: f"{request.method} cannot be used here; allowed: {allow}",
        413: "the body is too large; send less, or ask who runs this server for a higher limit",
    }
    return ProblemError(
        error.status, details.get(error.status, error.reason), headers={"Allow": allow} if allow else None
    )


def _away() -> ProblemError:
    detail = "the server cannot reach its database at this moment; nothing is lost, try again"
    return ProblemError(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def _bug(request: web.Request) -> ProblemError:
    detail = f"something went wrong in the server; its log has more under the request id {request[REQUEST_ID]}"
    return ProblemError(500, detail)


def _answer(error: ProblemError) -> web.Response:
    problem = Problem(
        title=HTTPStatus(error.status).phrase, status=error.status, detail=error.detail, errors=error.errors
    )
    return web.Response(
        status=error.status,
        body=problem.model_dump_json(by_alias=True).encode(),
        content_type="application/problem+json",
        headers=error.headers,
    )
