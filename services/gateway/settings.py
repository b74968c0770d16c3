"""What the gateway is told by its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.gateway.credentials import is_plausible_key
from services.gateway.webhooks.settings import WebhookSettings
from services.runtime.model_service import ModelServiceSettings
from services.runtime.settings import Address, GrpcSettings


def _refuse_odd_key(key: SecretStr) -> SecretStr:
    if not is_plausible_key(key.get_secret_value()):
        raise ValueError("must be 1 to 200 printable ASCII characters without spaces")
    return key


class GatewaySettings(ModelServiceSettings, GrpcSettings, WebhookSettings):
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """0: any free one, which the log names."""
    api_key: Annotated[SecretStr, AfterValidator(_refuse_odd_key)] | None = None
    """The key of the client `default`, stored at the start; none: only keys that are stored already are taken."""
    max_body_bytes: Annotated[int, Field(ge=1_024, le=64 * 1024**2)] = 4 * 1024**2
    grpc_listen: Address | None = None
    """Where `quarterdeck.v1.Jobs` is served over gRPC; none: nowhere."""
    vcs_token: SecretStr | None = None
    """What the vcs nodes ask for; none: nothing can be asked of them, such as to find repositories or to merge."""
    sync_wait_seconds: Annotated[float, Field(gt=0, le=600)] = 25
    """How long a request waits for the mirrors that it has fetched; what is not done by then goes on."""
