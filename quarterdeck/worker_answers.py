"""The bodies that a Worker API answers, by the names of its document. What a server adds is let through."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="allow")


class SessionRepository(_Answer):
    name: str | None = None
    url: str | None = None
    branch: str | None = None


class SessionStatus(_Answer):
    """Times are milliseconds since 1970."""

    session_id: str
    status: Literal["processing", "completed", "error"]
    current_turn: int
    repository: SessionRepository | None = None
    created_at: int
    last_activity_at: int
    completed_at: int | None = None
    error_message: str | None = None


class ComponentHealth(_Answer):
    status: str
    message: str | None = None
    configured: bool | None = None


class RequestHealth(_Answer):
    total: int
    by_route: dict[str, int]
    by_status: dict[str, int]
    success_rate: float


class ContainerHealth(_Answer):
    active: int
    total: int
    errors: int


class HealthMetrics(_Answer):
    """``average_response_time``: milliseconds."""

    requests: RequestHealth
    containers: ContainerHealth
    average_response_time: float
    error_rate: float


class Quota(_Answer):
    """Of this UTC day; costs in US dollars."""

    daily_tokens: int
    max_daily_tokens: int
    remaining_tokens: int
    daily_cost: float
    max_daily_cost: float
    remaining_cost: float
    active_sessions: int
    max_concurrent_sessions: int
    allowed: bool
    reason: str | None = None


class GitHubHealth(_Answer):
    app_id: str | None = None
    installation_id: str | None = None
    repository_count: int
    total_webhooks: int
    last_webhook_at: str | None = None


class WorkerHealth(_Answer):
    """``uptime``: milliseconds. ``components``: `durableObjects`, `containers`, `githubApp`, …"""

    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: str
    uptime: int
    version: str
    environment: str
    components: dict[str, ComponentHealth]
    metrics: HealthMetrics
    quota: Quota
    github: GitHubHealth
