"""What a client says of a call that found no server, or one that it could not talk to. Pure."""

from __future__ import annotations

from typing import Final

import grpc
import grpc.aio

_UNTRUSTED: Final = (
    "its certificate is not trusted here: check the CA, the certificate's dates, and that it names this address"
)
_HANDSHAKE: Final = "the TLS handshake failed: check that both certificates are valid and of the CA that is configured"
# A server that hangs up on what it takes for nonsense gives no reason.
_HUNG_UP: Final = (
    "the connection was closed: the service was stopped, only one side has TLS, or it does not trust our certificate"
)
# By what gRPC, its TLS and the kernel write into a status of UNAVAILABLE; the first that fits is told.
_MEANINGS: Final = (
    (("certificate_verify_failed", "hostname verification", "peer name"), _UNTRUSTED),
    (("wrong_version_number", "http_request"), "it does not speak TLS: give both sides certificates, or neither"),
    (("alert", "handshake"), _HANDSHAKE),
    (("connection refused",), "nothing listens there: check that the service runs and that the address is its"),
    (("no such file",), "no socket is there: check that the service runs and that the path is its"),
    (("permission denied",), "this user may not open the socket: run as the service's user"),
    (
        ("dns resolution", "name resolution", "errors resolving", "domain name not found"),
        "the host's name cannot be resolved: check it",
    ),
    (("keepalive", "ping timeout"), "the link is broken: no answer comes any more"),
    (("time", "no route", "unreachable"), "it cannot be reached: check the address and the network between"),
    (("socket closed", "connection reset", "broken pipe", "eof"), _HUNG_UP),
)


def explained(error: grpc.aio.AioRpcError) -> str:
    """Words for people: a service's own as they are; where none answered, what that means and what gRPC said."""
    said = error.details() or error.code().name
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return said
    lowered = said.lower()
    for signs, meaning in _MEANINGS:
        if any(sign in lowered for sign in signs):
            return f"{meaning} ({said})"
    return said
