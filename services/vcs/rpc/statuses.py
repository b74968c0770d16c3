"""The one table from errors to gRPC statuses, and the detail that travels beside a status."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from services.contracts.v1 import vcs_pb2
from services.jobs.errors import NotFoundError
from services.runtime.postgres import StoreUnavailableError
from services.vcs import errors
from services.vcs.mirrors.mirrors import UnknownMirrorError
from services.vcs.rpc.fields import FieldRefusedError
from services.vcs.worktrees.lfs import LfsRefusedError, LfsUnavailableError
from services.vcs.worktrees.sparse import PathRefusedError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

ERROR_DETAIL_KEY: Final = "quarterdeck-error-bin"
# Clients take 8 KiB of metadata in all. A status's words grow up to threefold on their way, the detail by a third.
_MOST_WORDS_BYTES: Final = 1_500
_MOST_GIT_BYTES: Final = 1_500

# The first kind that fits; what is in none of them is UNAVAILABLE where it may be tried again.
_STATUSES: Final[tuple[tuple[type[errors.VcsError], grpc.StatusCode], ...]] = (
    (FieldRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.RepositoryRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.RefRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.MetadataRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.WorktreeRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (PathRefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.UnknownWorktreeError, grpc.StatusCode.NOT_FOUND),
    (UnknownMirrorError, grpc.StatusCode.NOT_FOUND),
    (errors.LeaseLostError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.PatchRefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    (LfsRefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    (LfsUnavailableError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.PatchTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.GitOutputTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.GitFileTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.GitTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.ForgePausedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.ForgeNotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.ForgeRefusedError, grpc.StatusCode.FAILED_PRECONDITION),
)
# Those of which asking again may help now and then; where it does not, the caller has to change something first.
_UNLESS_RETRYABLE: Final = (
    errors.CloneFailedError,
    errors.PushRejectedError,
    errors.ForgeError,
    errors.CredentialsError,
)


def status_of(error: errors.VcsError) -> grpc.StatusCode:
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    if error.retryable:
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(error, _UNLESS_RETRYABLE):
        return grpc.StatusCode.FAILED_PRECONDITION
    return grpc.StatusCode.INTERNAL


@contextlib.asynccontextmanager
async def reported(context: Context) -> AsyncIterator[None]:
    """End the call with the status and detail of whatever a part raises; errors that nobody foresaw go on."""
    try:
        yield
    except StoreUnavailableError as error:
        # Whether the caller holds its run cannot be told now: as if this vcs were away.
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"Postgres is away: {error}")
    except NotFoundError as error:
        await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
    except errors.VcsError as error:
        detail = detail_of(error).SerializeToString()
        await context.abort(status_of(error), _head(str(error)), trailing_metadata=((ERROR_DETAIL_KEY, detail),))


def detail_of(error: errors.VcsError) -> vcs_pb2.VcsErrorDetail:
    return vcs_pb2.VcsErrorDetail(
        exit_reason=error.exit_reason,
        git_message=_tail(error.git_message),
        retryable=error.retryable,
        retry_after_seconds=error.seconds if isinstance(error, errors.ForgePausedError) else 0,
    )


def _head(text: str) -> str:
    return text.encode("utf-8", "replace")[:_MOST_WORDS_BYTES].decode("utf-8", "ignore")


def _tail(text: str) -> str:
    """Git says last what went wrong."""
    return text.encode("utf-8", "replace")[-_MOST_GIT_BYTES:].decode("utf-8", "ignore")
