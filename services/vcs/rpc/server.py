"""The gRPC server of a vcs: its servicer behind a token, with health and reflection for all."""

from __future__ import annotations

from typing import Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health
from grpc_reflection.v1alpha import reflection

from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.runtime.grpc import NO_TLS, GrpcSecurity, listen, make_server
from services.runtime.telemetry import logger
from services.vcs.rpc.deadlines import DEADLINES

log = logger("vcs.rpc")

SERVICE: Final[str] = vcs_pb2.DESCRIPTOR.services_by_name["Vcs"].full_name


class RpcServer:
    """``token``: what callers have to show."""

    def __init__(self, servicer: vcs_pb2_grpc.VcsServicer, *, token: str, security: GrpcSecurity = NO_TLS) -> None:
        self._security = security
        self._health = grpc_health.HealthServicer()
        self._server: grpc.aio.Server = make_server(token, DEADLINES)
        vcs_pb2_grpc.add_VcsServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, address: str) -> str:
        """Serve at `host:port` or `unix:/path`; the address with the port that it got.

        Raises ``CannotListenError``, ``WrongCertificatesError``.
        """
        listening = listen(self._server, address, self._security)
        await self._server.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        log.info("listening", address=listening, tls=self._security.has_tls)
        return listening

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Take nothing new, tell so, and let calls finish; None: end them. Stopping twice is fine."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)
