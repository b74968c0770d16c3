"""gRPC between services: servers and channels with a token, TLS where configured, deadlines, and limits for patches."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import grpc
import grpc.aio

from services.runtime.grpc.addresses import (
    UNIX,
    CannotListenError,
    GrpcAddress,
    claimed,
    socket_path,
    stays_on_this_machine,
)
from services.runtime.grpc.calls import CallsInterceptor
from services.runtime.grpc.security import NO_TLS, GrpcSecurity, WrongCertificatesError
from services.runtime.grpc.tokens import BearerInterceptor, Handler, bearer
from services.runtime.grpc.words import explained

__all__ = [
    "MAX_MESSAGE_BYTES",
    "NO_TLS",
    "CannotListenError",
    "GrpcAddress",
    "GrpcSecurity",
    "Handler",
    "WrongCertificatesError",
    "bearer",
    "explained",
    "listen",
    "make_channel",
    "make_server",
]

# A patch travels whole in one message; the default of 4 MiB would refuse what a run may well deliver.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_LIMITS: Final[list[tuple[str, Any]]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
]

KEEPALIVE: Final = timedelta(seconds=20)
"""After as long without a word the other side is asked; a half-open link is noticed within this and the answer's."""
KEEPALIVE_ANSWER: Final = timedelta(seconds=10)
_LEAST_PING: Final = timedelta(seconds=5)
_CONNECT: Final = timedelta(seconds=5)


def make_server(token: str, deadlines: Mapping[str, timedelta] | None = None) -> grpc.aio.Server:
    """A server that asks for ``token`` and refuses a port that another server already has.

    ``deadlines``: by a method's name, for calls that come without one.
    """
    return grpc.aio.server(
        interceptors=[BearerInterceptor(token), CallsInterceptor(deadlines or {})],
        options=[
            *_LIMITS,
            *_keepalive(KEEPALIVE),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(_LEAST_PING)),
        ],
    )


def listen(server: grpc.aio.Server, address: str, security: GrpcSecurity = NO_TLS) -> str:
    """Have ``server``, before its start, listen at ``address``; the address with the port that it got.

    A Unix socket's folder is made for this user alone, and what a dead process left is replaced. Raises
    ``CannotListenError``, also for TCP beyond this machine without TLS, and ``WrongCertificatesError``.
    """
    if not (security.has_tls or security.allow_insecure or stays_on_this_machine(address)):
        raise CannotListenError(
            f"{address} can be reached from other machines, and tokens would travel in the clear: set "
            "QUARTERDECK_GRPC_CA, QUARTERDECK_GRPC_CERTIFICATE and QUARTERDECK_GRPC_KEY, listen on 127.0.0.1 or a "
            "Unix socket, or set QUARTERDECK_GRPC_INSECURE=1 where the network is trusted"
        )
    path = socket_path(address)
    if path is None:
        port = _bind(server, address, security)
        return f"{address.rpartition(':')[0]}:{port}"
    with claimed(path):
        _bind(server, f"{UNIX}{path}", security)
    return f"{UNIX}{path}"


def _bind(server: grpc.aio.Server, address: str, security: GrpcSecurity) -> int:
    credentials = security.server_credentials()
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise CannotListenError(f"failed to bind {address}: {error}") from error


def make_channel(
    address: str, security: GrpcSecurity = NO_TLS, *, keepalive: timedelta = KEEPALIVE
) -> grpc.aio.Channel:
    """A channel that reconnects by itself, within a second of the server's return, and gives up an attempt after 5 s.

    With TLS the certificate of a server on a Unix socket must name `localhost`. ``explained`` has words for what a call
    over it fails with.
    """
    options = [
        *_LIMITS,
        *_keepalive(keepalive),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Its name notwithstanding, this bounds how long an attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", _milliseconds(_CONNECT)),
        # What is between services is no business of the proxy that leads to the internet.
        ("grpc.enable_http_proxy", 0),
    ]
    credentials = security.channel_credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    if socket_path(address) is not None:
        options.append(("grpc.ssl_target_name_override", "localhost"))  # else the path is looked for
    return grpc.aio.secure_channel(address, credentials, options=options)


def _keepalive(every: timedelta) -> list[tuple[str, Any]]:
    answer = _milliseconds(min(every, KEEPALIVE_ANSWER))
    return [
        ("grpc.keepalive_time_ms", _milliseconds(every)),
        ("grpc.keepalive_timeout_ms", answer),
        # What grpcio 1.85 goes by in place of the former: a minute, where it is left out.
        ("grpc.http2.ping_timeout_ms", answer),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _milliseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1_000)
