"""Settings from the environment, checked once at the start; a wrong one is named and ends the process with 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.sealing import Sealer

EXIT_WRONG_CONFIGURATION = 2


def checked_address(address: str) -> str:
    """``address`` if it is `host:port`; raises ``ValueError``."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004  the ports' range
        raise ValueError("must be host:port, as in 127.0.0.1:8081")
    return address


Address = Annotated[str, AfterValidator(checked_address)]


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _url(*schemes: str, example: str) -> AfterValidator:
    def check(url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must be a URL, as in {example}")
        return url

    return AfterValidator(check)


DatabaseUrl = Annotated[
    SecretStr, _url("postgresql", "postgres", example="postgresql://user:password@127.0.0.1:5432/quarterdeck")
]
NatsUrl = Annotated[SecretStr, _url("nats", "tls", "ws", "wss", example="nats://user:password@127.0.0.1:4222")]


class ServiceSettings(BaseSettings):
    """What every service needs. A field's variable is its name in capitals after `QUARTERDECK_`."""

    model_config = SettingsConfigDict(
        env_prefix="QUARTERDECK_", extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    database_url: Annotated[DatabaseUrl, Field(validation_alias="DATABASE_URL")]
    nats_url: Annotated[NatsUrl, Field(validation_alias="NATS_URL")]
    health_address: Address | None = None
    """Where `GET /health` is served; none: nowhere (the gateway serves its own)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "console"
    database_pool: Annotated[int, Field(ge=1, le=100)] = 8
    """Most Postgres connections of this process."""
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 5
    """How long running work may go on after SIGTERM before it is handed back as interrupted."""


def _refuse_bad_keys(keys: SecretStr) -> SecretStr:
    Sealer(keys.get_secret_value())
    return keys


class SealingSettings(ServiceSettings):
    """Of a service that stores secrets, or uses them."""

    secret_key: Annotated[SecretStr, AfterValidator(_refuse_bad_keys)] | None = None
    """Seals and opens secrets, as ``Sealer`` takes it; none: storing one is refused."""

    @property
    def sealer(self) -> Sealer:
        return Sealer(self.secret_key.get_secret_value() if self.secret_key else None)


class GrpcSettings(ServiceSettings):
    """Of a service that calls others over gRPC, or is called. Files are PEM; without them there is no TLS."""

    grpc_ca: Path | None = None
    """Who vouches for the other services' certificates; with the two below, each proves itself to the other (mTLS)."""
    grpc_certificate: Path | None = None
    grpc_key: Path | None = None
    grpc_insecure: bool = False
    """Whether a server may be reached from other machines without TLS. Only where the network between is trusted."""


Settings = TypeVar("Settings", bound=BaseSettings)


def load(kind: type[Settings]) -> Settings:
    """Read ``kind`` from the environment, or say what is wrong with which variable and exit 2."""
    try:
        return kind()
    except ValidationError as error:
        for problem in error.errors():
            _say(_variable(kind, problem["loc"]), _reason(problem["type"], problem["msg"]))
        sys.exit(EXIT_WRONG_CONFIGURATION)


def refuse(variable: str, reason: str) -> NoReturn:
    """End the process over a setting that only its use could prove wrong."""
    _say(variable, reason)
    sys.exit(EXIT_WRONG_CONFIGURATION)


def _say(variable: str, reason: str) -> None:
    print(f"{variable}: {reason}", file=sys.stderr)  # noqa: T201  no log is set up yet


def _variable(kind: type[BaseSettings], location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "environment"
    field = kind.model_fields.get(name)
    if field is None:
        return name.upper()
    return f"{kind.model_config.get('env_prefix', '')}{name}".upper()


def _reason(kind: str, message: str) -> str:
    return "is required and not set" if kind == "missing" else message.removeprefix("Value error, ")
