"""What the environment says of the Cody Batch API: its document's variables, and where and to whom it is served."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.gateway.dialects.cody_batch.allowed import Allowed
from services.gateway.dialects.github_server import GitHubServerSettings
from services.gateway.dialects.settings import Count, Key, Port, limit_of
from services.jobs.clients import OwnLimits

PORT_VARIABLE = "QUARTERDECK_CODY_PORT"
KEY_VARIABLE = "QUARTERDECK_CODY_API_KEY"
OPEN_VARIABLE = "QUARTERDECK_CODY_NO_AUTH"
ALLOWED_VARIABLE = "ALLOWED_REPOSITORIES"
UNUSED = ("AWS_*", "DYNAMODB_*", "NODE_ENV")
"""Of its document's variables, those that mean nothing here."""
DEFAULT_QUEUE_SIZE = 100
MOST_REPOSITORIES = 250
"""Of one job: the names of so many fit into its metadata."""


def _refuse_bad_patterns(text: str) -> str:
    if not Allowed.parse(text).patterns:
        raise ValueError("names no repository: write patterns such as `owner/*`, with commas between")
    return text


class CodySettings(GitHubServerSettings):
    api_key: Annotated[Key, Field(validation_alias=KEY_VARIABLE)] = SecretStr("")
    """What requests must bear; none: see ``admission``."""
    no_auth: Annotated[bool, Field(validation_alias=OPEN_VARIABLE)] = False
    """Whether everybody who reaches it may use it."""
    port: Annotated[Port | None, Field(validation_alias=PORT_VARIABLE)] = None
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

    def allowed_on(self, *, is_local: bool) -> Allowed | None:
        """What may be worked on. Where nothing is said it is everything, for people on this machine; for others None:
        what was registered for this API, and nothing else.
        """
        if self.allowed_repositories is not None:
            return Allowed.parse(self.allowed_repositories)
        return Allowed.everything() if is_local else None

    @property
    def limits(self) -> OwnLimits:
        return OwnLimits(
            slots=limit_of(self.max_workers, self.max_repositories),
            queued=limit_of(self.max_queue_size, DEFAULT_QUEUE_SIZE),
        )
