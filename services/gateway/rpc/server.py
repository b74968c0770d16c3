"""The gRPC server of the gateway: Jobs for who has an API key, health and reflection for all."""

from __future__ import annotations

from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health
from grpc_reflection.v1alpha import reflection

from services.contracts.v1 import jobs_pb2, jobs_pb2_grpc
from services.gateway.context import Gateway
from services.gateway.rpc.calls import Calls
from services.gateway.rpc.servicer import JobsServicer
from services.runtime.grpc import MAX_MESSAGE_BYTES
from services.runtime.telemetry import logger

log = logger("gateway.rpc")

SERVICE: str = jobs_pb2.DESCRIPTOR.services_by_name["Jobs"].full_name
KEEPALIVE_SECONDS = 20
KEEPALIVE_ANSWER_SECONDS = 10
LEAST_PING_SECONDS = 10
"""Clients may ask as often whether we are there."""


class CannotListenError(Exception):
    """The address cannot be listened on: another process has it, or this machine has not."""


class RpcServer:
    """``most_request_bytes``: of one request; the bound of a body over HTTP."""

    def __init__(self, gateway: Gateway, *, most_request_bytes: int) -> None:
        self._gateway = gateway
        self._most_request_bytes = most_request_bytes
        self._health = grpc_health.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> None:
        """Serve at ``address``, `host:port`. Raises ``CannotListenError``."""
        server = grpc.aio.server(
            interceptors=[Calls(self._gateway.authenticator)], options=_options(self._most_request_bytes)
        )
        jobs_pb2_grpc.add_JobsServicer_to_server(JobsServicer(self._gateway), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotListenError(f"cannot listen on {address}: {error}") from error
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        self._server = server
        log.info("listening", address=f"{address.rpartition(':')[0]}:{port}")

    async def stop(self, *, drain_seconds: float) -> None:
        """Take nothing new, end the event streams for others to take up, let calls finish. Before a start: nothing."""
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        self._gateway.hub.close()
        await self._server.stop(drain_seconds)


def _options(most_request_bytes: int) -> list[tuple[str, Any]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", most_request_bytes),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A client that is gone without a word would else keep its stream for ever.
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1_000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_SECONDS * 1_000),
        # What grpcio 1.85 goes by in place of the former: a minute, where it is left out.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_ANSWER_SECONDS * 1_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_SECONDS * 1_000),
    ]
