"""What the environment says of the Worker API's service: its limits, who may call it from where, and what it shows."""

from __future__ import annotations

import ipaddress
import secrets
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import AfterValidator, AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.contracts.agents import Budget
from services.jobs.clients import OwnBudget
from services.runtime.sealing import VARIABLE as SECRET_KEY_VARIABLE

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]

DEFAULT_ORIGINS = "https://cloud-code.finhub.workers.dev,http://localhost:8787,http://localhost:3000"
DEFAULT_TOKENS = 1_000_000
DEFAULT_USD = 50.0
MINUTE, HOUR, DAY = 60, 3_600, 86_400
_STATE_KEY_BYTES = 32


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def origin_of(address: str) -> str:
    """Scheme, host and, unless it is the scheme's own, port, as browsers write them.

    Raises ``ValueError`` where ``address`` is none.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be an http or https address, as in https://example.com")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, usual) else f":{parts.port}")


def _refuse_odd_origins(text: str) -> str:
    for word in _words(text):
        if word == "*":
            raise ValueError("names the origins one by one: `*` would let any web page use this server")
        if origin_of(word) != word:
            raise ValueError(f"must be origins, separated by commas, such as {origin_of(word)} in the place of {word}")
    return text


def _refuse_odd_networks(text: str) -> str:
    for word in _words(text):
        ipaddress.ip_network(word)  # its error names the word
    return text


def _refuse_odd_address(address: str) -> str:
    origin_of(address)
    return address.rstrip("/")


class ServiceSettings(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    requests_per_minute: Annotated[Count, Field(validation_alias="WORKER_RATE_LIMIT_PER_MINUTE")] = 60
    """Of one client address, as the two below."""
    requests_per_hour: Annotated[Count, Field(validation_alias="WORKER_RATE_LIMIT_PER_HOUR")] = 1_000
    requests_per_day: Annotated[Count, Field(validation_alias="WORKER_RATE_LIMIT_PER_DAY")] = 5_000
    trusted_proxies: Annotated[
        str, AfterValidator(_refuse_odd_networks), Field(validation_alias="WORKER_TRUSTED_PROXIES")
    ] = ""
    """Addresses and networks, separated by commas, whose `X-Forwarded-For` is believed; none: nobody's."""
    cors_origins: Annotated[str, AfterValidator(_refuse_odd_origins), Field(validation_alias="WORKER_CORS_ORIGINS")] = (
        DEFAULT_ORIGINS
    )
    """Whose pages may call the API from a browser, separated by commas; also where `redirect_url` may lead."""
    max_daily_tokens: Annotated[int | None, Field(validation_alias="WORKER_MAX_DAILY_TOKENS", ge=0, le=10**12)] = None
    """A UTC day; none: 1,000,000, where no budget is set yet."""
    max_daily_usd: Annotated[
        float | None, Field(validation_alias="WORKER_MAX_DAILY_COST_USD", ge=0, le=1_000_000, allow_inf_nan=False)
    ] = None
    """A UTC day; none: 50, where no budget is set yet."""
    environment: Annotated[
        str, Field(validation_alias=AliasChoices("ENVIRONMENT", "NODE_ENV"), min_length=1, max_length=100)
    ] = "production"
    """What `/health` calls this installation."""
    public_url: Annotated[
        str | None,
        AfterValidator(lambda url: url and _refuse_odd_address(url)),
        Field(validation_alias="QUARTERDECK_PUBLIC_URL"),
    ] = None
    """Where the gateway is reached from outside, such as by GitHub; none: as each page was reached."""
    app_id: Annotated[str | None, Field(validation_alias="GITHUB_APP_ID", max_length=100)] = None
    """Of an App that vcs has from its environment, for `/health` to show; none: the one that was set up, if any."""
    installation_id: Annotated[str | None, Field(validation_alias="GITHUB_APP_INSTALLATION_ID", max_length=100)] = None
    agents_have_key: Annotated[bool, Field(validation_alias="QUARTERDECK_AGENTS_HAVE_KEY")] = False
    """Whether agents have a key of their own for the model service, which the gateway is not told."""
    secret_key: Annotated[SecretStr | None, Field(validation_alias=SECRET_KEY_VARIABLE)] = None
    """What the state of an App's set-up is signed with, by way of a key made from it; none: one of this process."""

    @property
    def rates(self) -> dict[int, int]:
        """Most requests by the seconds of a window."""
        return {MINUTE: self.requests_per_minute, HOUR: self.requests_per_hour, DAY: self.requests_per_day}

    @property
    def proxies(self) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(word) for word in _words(self.trusted_proxies))

    @property
    def origins(self) -> frozenset[str]:
        return frozenset(_words(self.cors_origins))

    @property
    def daily(self) -> Budget:
        """Of a UTC day."""
        tokens = DEFAULT_TOKENS if self.max_daily_tokens is None else self.max_daily_tokens
        return Budget(tokens=tokens, usd=DEFAULT_USD if self.max_daily_usd is None else self.max_daily_usd)

    @property
    def own_budget(self) -> OwnBudget:
        return OwnBudget(self.daily, is_told=self.max_daily_tokens is not None or self.max_daily_usd is not None)

    def state_key(self) -> bytes:
        """The same in each process that has the same secret key."""
        if self.secret_key is None or not self.secret_key.get_secret_value():
            return secrets.token_bytes(_STATE_KEY_BYTES)
        first, _, _ = self.secret_key.get_secret_value().partition(",")
        made = HKDF(algorithm=SHA256(), length=_STATE_KEY_BYTES, salt=None, info=b"worker gh-setup state")
        return made.derive(first.strip().encode())
