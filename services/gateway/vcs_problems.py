"""What went wrong on a vcs node, in the words and status of an answer. Addresses of nodes are told to nobody."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

import grpc
import grpc.aio

from services.contracts.v1.vcs_pb2 import VcsErrorDetail
from services.gateway.problems import RETRY_AFTER_SECONDS, ProblemError
from services.runtime.telemetry import logger

log = logger("gateway.vcs")

_ERROR_DETAIL = "quarterdeck-error-bin"
_MOST_RETRY_AFTER_SECONDS = 86_400
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_STATUS: Mapping[grpc.StatusCode, HTTPStatus] = {
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.CONFLICT,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.SERVICE_UNAVAILABLE,
}
_NOT_SET_UP = (
    "this server has no access to its vcs service: whoever runs it must set QUARTERDECK_VCS_TOKEN on the gateway"
)
_REFUSED = (
    "the vcs service refuses this server's token: whoever runs it must set the same QUARTERDECK_VCS_TOKEN on both"
)
_NONE_LIVES = "no vcs node lives at this moment; nothing was done, try again"
_UNREACHED = "the vcs node does not answer; nothing was done there, try again"
_WENT_AWAY = "the vcs node went away meanwhile; whether it has acted is not known, look again before you repeat it"
_TOO_SLOW = "the vcs node did not answer in time; whether it has acted is not known, look again before you repeat it"


class VcsUnavailableError(ProblemError):
    """503: nobody could be asked, or whoever was asked cannot do it now."""

    def __init__(self, detail: str, *, seconds: float = 0) -> None:
        wait = min(_MOST_RETRY_AFTER_SECONDS, max(RETRY_AFTER_SECONDS, math.ceil(seconds)))
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(wait)})


class NodeAwayError(VcsUnavailableError):
    """One node cannot be used; another one may be. ``was_asked``: it may have acted."""

    def __init__(self, detail: str, *, was_asked: bool) -> None:
        super().__init__(detail)
        self.was_asked = was_asked


class DeadlinePassedError(VcsUnavailableError):
    """The node took too long; it may go on."""


def no_token() -> VcsUnavailableError:
    return VcsUnavailableError(_NOT_SET_UP)


def none_lives() -> VcsUnavailableError:
    return VcsUnavailableError(_NONE_LIVES)


def unreached(node: str, reason: str) -> NodeAwayError:
    log.warning("a vcs node does not answer", node=node, reason=reason)
    return NodeAwayError(_UNREACHED, was_asked=False)


def problem_of(node: str, error: grpc.aio.AioRpcError) -> ProblemError:
    """What to answer for a call that ``node`` ended with ``error``."""
    code, detail = error.code(), _detail(error)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        log.error("a vcs node refuses QUARTERDECK_VCS_TOKEN", node=node)
        return NodeAwayError(_REFUSED, was_asked=False)
    if detail is None and code in _AWAY:
        log.warning("a vcs node went away", node=node, error=error.details())
        return NodeAwayError(_WENT_AWAY, was_asked=True)
    if detail is None and code is grpc.StatusCode.DEADLINE_EXCEEDED:
        log.warning("a vcs node did not answer in time", node=node)
        return DeadlinePassedError(_TOO_SLOW)
    words = error.details() or code.name
    status = _STATUS.get(code)
    if status is None:
        log.error("a vcs node failed", node=node, code=code.name, error=words)
        return ProblemError(HTTPStatus.BAD_GATEWAY, f"the vcs node failed: {words}")
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        return VcsUnavailableError(words, seconds=detail.retry_after_seconds if detail else 0)
    return ProblemError(status, words)


def _detail(error: grpc.aio.AioRpcError) -> VcsErrorDetail | None:
    """What the vcs itself said of its error; None where it did not get to say anything."""
    for key, value in error.trailing_metadata() or ():
        if key == _ERROR_DETAIL and isinstance(value, bytes):
            return VcsErrorDetail.FromString(value)
    return None
