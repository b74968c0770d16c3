"""What the environment says of the Cody Batch API: its document's variables, and where and to whom it is served."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.gateway.credentials import is_plausible_key
from services.gateway.dialects.cody_batch.allowed import Allowed
from services.jobs.clients import OwnLimit, OwnLimits

PORT_VARIABLE = "QUARTERDECK_CODY_PORT"
KEY_VARIABLE = "QUARTERDECK_CODY_API_KEY"
OPEN_VARIABLE = "QUARTERDECK_CODY_NO_AUTH"
ALLOWED_VARIABLE = "ALLOWED_REPOSITORIES"
UNUSED = ("AWS_*", "DYNAMODB_*", "NODE_ENV")
"""Of its document's variables, those that mean nothing here."""
DEFAULT_QUEUE_SIZE = 100
MOST_REPOSITORIES = 250
"""Of one job: the names of so many fit into its metadata."""
_PUBLIC_SERVER = "https://github.com"
_ENTERPRISE_PATH = "/api/v3"
_DATA_RESIDENCY_DOMAIN = ".ghe.com"
Count = Annotated[int, Field(ge=1, le=100_000)]


def _refuse_odd_key(key: SecretStr) -> SecretStr:
    if not is_plausible_key(key.get_secret_value()):
        raise ValueError("must be 1 to 200 printable ASCII characters without spaces")
    return key


def _refuse_bad_patterns(text: str) -> str:
    if not Allowed.parse(text).patterns:
        raise ValueError("names no repository: write patterns such as `owner/*`, with commas between")
    return text


def _refuse_bad_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError("must be a URL such as https://github.com, without a user name")
    return address.rstrip("/")


class CodySettings(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    api_key: Annotated[
        Annotated[SecretStr, AfterValidator(_refuse_odd_key)] | None, Field(validation_alias=KEY_VARIABLE)
    ] = None
    """What requests must bear; none: see ``admission``."""
    no_auth: Annotated[bool, Field(validation_alias=OPEN_VARIABLE)] = False
    """Whether everybody who reaches it may use it."""
    port: Annotated[int | None, Field(validation_alias=PORT_VARIABLE, ge=1, le=65_535)] = None
    """Where the API is served at the root; none: in `/cody-batch` of the gateway alone."""
    allowed_repositories: Annotated[
        Annotated[str, AfterValidator(_refuse_bad_patterns)] | None, Field(validation_alias=ALLOWED_VARIABLE)
    ] = None
    """Globs over `owner/name`, separated by commas; none: see ``allowed_on``."""
    max_repositories: Annotated[int, Field(validation_alias="CODY_MAX_REPOSITORIES", ge=1, le=MOST_REPOSITORIES)] = 5
    """Of one job."""
    max_workers: Annotated[Count | None, Field(validation_alias="CODY_MAX_WORKERS")] = None
    """Repositories at once; none: as many as one job may have, where no limit is set yet."""
    max_queue_size: Annotated[Count | None, Field(validation_alias="CODY_MAX_QUEUE_SIZE")] = None
    """Jobs that may wait; none: 100, where no limit is set yet."""
    github_api_url: Annotated[str, Field(validation_alias="GITHUB_API_URL")] = ""
    github_server_url: Annotated[
        Annotated[str, AfterValidator(_refuse_bad_address)] | None, Field(validation_alias="GITHUB_SERVER_URL")
    ] = None
    """Where `owner/name` is cloned from; none: taken from the API's address where it tells, else GitHub.com."""

    def allowed_on(self, *, is_local: bool) -> Allowed | None:
        """What may be worked on. Where nothing is said it is everything, for people on this machine; for others None:
        what was registered for this API, and nothing else.
        """
        if self.allowed_repositories is not None:
            return Allowed.parse(self.allowed_repositories)
        return Allowed.everything() if is_local else None

    @property
    def server_url(self) -> str:
        """Without a slash at its end."""
        if self.github_server_url is not None:
            return self.github_server_url
        api = urlsplit(self.github_api_url.rstrip("/"))
        if api.hostname and api.path == _ENTERPRISE_PATH:
            return f"{api.scheme}://{api.netloc}"
        if api.netloc.startswith("api.") and api.netloc.endswith(_DATA_RESIDENCY_DOMAIN):
            return f"{api.scheme}://{api.netloc.removeprefix('api.')}"
        return _PUBLIC_SERVER

    @property
    def limits(self) -> OwnLimits:
        return OwnLimits(
            slots=_limit(self.max_workers, self.max_repositories),
            queued=_limit(self.max_queue_size, DEFAULT_QUEUE_SIZE),
        )


def _limit(told: int | None, default: int) -> OwnLimit:
    return OwnLimit(default if told is None else told, is_told=told is not None)
