"""TLS between services: read from files, checked before any call needs it. Without files, there is none."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from services.runtime.settings import GrpcSettings, refuse


class WrongCertificatesError(Exception):
    """The files of a certificate cannot be used; ``variable``: the setting that names the wrong one."""

    def __init__(self, variable: str, reason: str) -> None:
        super().__init__(f"{variable}: {reason}")
        self.variable = variable
        self.reason = reason


@dataclass(frozen=True, slots=True)
class GrpcSecurity:
    """PEM. Servers: ``certificate`` and ``key`` make TLS, with ``ca`` mTLS: who calls needs a certificate of it too.

    Clients: ``ca`` (None: those of this system) is who vouches for servers, ``certificate`` and ``key`` what they show.
    ``allow_insecure``: whether a server may be reached from other machines without TLS.
    """

    ca: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    allow_insecure: bool = False

    @classmethod
    def read(cls, settings: GrpcSettings) -> GrpcSecurity:
        """Raises ``WrongCertificatesError`` for what no connection could use."""
        ca, certificate, key = settings.grpc_ca, settings.grpc_certificate, settings.grpc_key
        if certificate is None and key is not None:
            raise WrongCertificatesError("QUARTERDECK_GRPC_CERTIFICATE", "is required where there is a key")
        if key is None and certificate is not None:
            raise WrongCertificatesError("QUARTERDECK_GRPC_KEY", "is required where there is a certificate")
        read = cls(
            _read("QUARTERDECK_GRPC_CA", ca),
            _read("QUARTERDECK_GRPC_CERTIFICATE", certificate),
            _read("QUARTERDECK_GRPC_KEY", key),
            allow_insecure=settings.grpc_insecure,
        )
        _check(ca, certificate, key)
        return read

    @classmethod
    def load(cls, settings: GrpcSettings) -> GrpcSecurity:
        """``read``, or say what is wrong with which variable and exit 2; for the start of a process."""
        try:
            return cls.read(settings)
        except WrongCertificatesError as error:
            refuse(error.variable, error.reason)

    @property
    def has_tls(self) -> bool:
        return self.ca is not None or self.certificate is not None

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """None: without TLS. Raises ``WrongCertificatesError`` where there is a CA alone."""
        if not self.has_tls:
            return None
        if self.certificate is None or self.key is None:
            raise WrongCertificatesError(
                "QUARTERDECK_GRPC_CERTIFICATE", "is required, with QUARTERDECK_GRPC_KEY, of what listens with TLS"
            )
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)],
            root_certificates=self.ca,
            require_client_auth=self.ca is not None,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """None: without TLS."""
        if not self.has_tls:
            return None
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


NO_TLS = GrpcSecurity()


def _read(variable: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise WrongCertificatesError(variable, f"{path} cannot be read: {error.strerror}") from error


def _check(ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    """OpenSSL says at once what gRPC would say in a log, after it has begun to listen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None and key is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise WrongCertificatesError(
                "QUARTERDECK_GRPC_CERTIFICATE",
                f"{certificate} and the key {key} are no pair in PEM without a password: {_reason(error)}",
            ) from error
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (ssl.SSLError, ValueError) as error:
            raise WrongCertificatesError(
                "QUARTERDECK_GRPC_CA", f"{ca} holds no certificates in PEM: {_reason(error)}"
            ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


def _no_password() -> str:
    """Instead of a question on the terminal."""
    raise ValueError("the key has a password")
