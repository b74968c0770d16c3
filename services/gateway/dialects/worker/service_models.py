"""The bodies of health, metrics, configuration and containers, in their document's words. Times in milliseconds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.alias_generators import to_camel

from services.contracts.agents import ApiKey
from services.gateway.dialects.worker.models import Timestamp

KEY_BEGINNING = "sk-ant-"
State = Literal["operational", "degraded", "unavailable"]


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Component(_Body):
    status: State
    message: str


class Configured(_Body):
    status: Literal["configured", "not configured"]
    configured: bool

    @classmethod
    def of(cls, is_configured: bool) -> Configured:
        return cls(status="configured" if is_configured else "not configured", configured=is_configured)


class Components(_Body):
    durable_objects: Component = Field(description="where sessions are kept: the database and NATS")
    containers: Component = Field(description="the agents that live")
    github_app: Configured = Field(alias="githubApp")
    claude_config: Configured
    rate_limit: Configured


class Requests(_Body):
    """What this process has answered. The sums over routes and over statuses are the total."""

    total: int
    by_route: dict[str, int]
    by_status: dict[str, int]


class RatedRequests(Requests):
    success_rate: float = Field(description="1 less the error rate")


class Containers(_Body):
    """Runs of this API's client."""

    active: int = Field(description="under way now")
    total: int = Field(description="started, of jobs that came in this UTC day or are under way")
    errors: int = Field(description="failed, of these")


class HealthMetrics(_Body):
    requests: RatedRequests
    containers: Containers
    average_response_time: float = Field(description="until an answer begins")
    error_rate: float = Field(description="share of the answers that are 5xx")


class QuotaStanding(_Body):
    """Of this UTC day."""

    daily_tokens: int
    max_daily_tokens: int
    remaining_tokens: int
    daily_cost: float = Field(description="USD by list prices, as the two below")
    max_daily_cost: float
    remaining_cost: float
    active_sessions: int
    max_concurrent_sessions: int
    allowed: bool = Field(description="whether a session may be started now")
    reason: str


class GitHubStanding(_Body):
    app_id: str | None
    installation_id: str | None
    repository_count: int
    total_webhooks: int = Field(description="deliveries of the last seven days")
    last_webhook_at: Timestamp | None


class Health(_Body):
    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: Timestamp
    uptime: int
    version: str
    environment: str
    components: Components
    metrics: HealthMetrics
    quota: QuotaStanding
    github: GitHubStanding


class WebhookStats(_Body):
    total_webhooks: int
    last_webhook_at: Timestamp | None


class Metrics(_Body):
    requests: Requests
    containers: Containers
    average_response_time: float
    deployment_start_time: Timestamp
    uptime: int
    version: str
    webhook_stats: WebhookStats


class GitHubConfigured(_Body):
    configured: bool
    app_id: str | None
    owner: str | None
    repository_count: int


class ClaudeConfigured(_Body):
    configured: bool
    setup_at: Timestamp | None = Field(description="when the settings that hold the stored key were last changed")


class ConfigurationStatus(_Body):
    """The last three repeat what is above, for clients that read them."""

    github: GitHubConfigured
    claude: ClaudeConfigured
    github_app_configured: bool = Field(alias="githubAppConfigured")
    claude_configured: bool
    repository_count: int


class ContainerHealth(_Body):
    status: Literal["healthy"] = "healthy"
    message: str = "Container is healthy"
    instance_id: str = Field(description="the agent's name")


class ClaudeSetupRequest(_Body):
    """Fields that the document does not have are ignored."""

    anthropic_api_key: ApiKey

    @field_validator("anthropic_api_key")
    @classmethod
    def _begins_as_they_do(cls, key: SecretStr) -> SecretStr:
        if not key.get_secret_value().startswith(KEY_BEGINNING):
            raise ValueError(f"Invalid API key format: it must begin with {KEY_BEGINNING}")
        return key


class ClaudeSetupDone(_Body):
    success: Literal[True] = True
    message: str = "The Anthropic API key is stored, encrypted"
