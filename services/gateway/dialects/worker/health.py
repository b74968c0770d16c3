"""What `/health` says, made from what was measured. Pure: it asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Final

from services.contracts.agents import Budget
from services.contracts.spending import Amount
from services.gateway.dialects.worker import service_models as models
from services.gateway.dialects.worker.github_look import GitHub
from services.gateway.dialects.worker.measures import Measures
from services.gateway.dialects.worker.quota import Standing
from services.jobs.deliveries import Totals
from services.jobs.measuring import Agent, Work

VERSION: Final = version("quarterdeck")
OK: Final = "ok"


@dataclass(frozen=True)
class Facts:
    """``postgres``, ``nats``: `ok`, or what is wrong. ``has_key``: whether runs have a key for the model service."""

    postgres: str
    nats: str
    agents: Sequence[Agent]
    work: Work
    standing: Standing
    github: GitHub
    has_key: bool
    deliveries: Totals

    @classmethod
    def unknown(cls, why: str, most: Budget, most_sessions: int) -> Facts:
        """While Postgres is away, which knows them."""
        return cls(
            postgres=why,
            nats="not asked",
            agents=(),
            work=Work(0, 0, 0),
            standing=Standing(Amount(tokens=0, usd=0), most, 0, most_sessions),
            github=GitHub(is_configured=False, repositories=0),
            has_key=False,
            deliveries=Totals(0, None),
        )

    @property
    def is_stored(self) -> bool:
        return self.postgres == OK

    @property
    def is_whole(self) -> bool:
        return self.nats == OK and (self.github.is_configured or self.has_key) and not self.standing.is_spent


def health(facts: Facts, measures: Measures, *, environment: str, time: datetime) -> models.Health:
    word = "degraded" if facts.is_stored else "unhealthy"
    return models.Health(
        status="healthy" if facts.is_stored and facts.is_whole else word,
        timestamp=time,
        uptime=measures.uptime_milliseconds,
        version=VERSION,
        environment=environment,
        components=_components(facts),
        metrics=_metrics(facts.work, measures),
        quota=_quota(facts),
        github=models.GitHubStanding(
            app_id=facts.github.app_id,
            installation_id=facts.github.installation_id,
            repository_count=facts.github.repositories,
            total_webhooks=facts.deliveries.count,
            last_webhook_at=facts.deliveries.last_received_at,
        ),
    )


def metrics(work: Work, deliveries: Totals, measures: Measures) -> models.Metrics:
    return models.Metrics(
        requests=models.Requests(
            total=measures.total, by_route=dict(measures.by_route), by_status=dict(measures.by_status)
        ),
        containers=_containers(work),
        average_response_time=measures.average_milliseconds,
        deployment_start_time=measures.started_at,
        uptime=measures.uptime_milliseconds,
        version=VERSION,
        webhook_stats=models.WebhookStats(total_webhooks=deliveries.count, last_webhook_at=deliveries.last_received_at),
    )


def prometheus(work: Work, measures: Measures) -> str:
    """The documented metrics, and how long this process has been up, in Prometheus's text format."""
    families = (
        ("requests_total", "Total number of requests", "counter", str(measures.total)),
        ("containers_active", "Number of active containers", "gauge", str(work.active)),
        (
            "average_response_time_ms",
            "Average response time in milliseconds",
            "gauge",
            f"{measures.average_milliseconds:.2f}",
        ),
        ("uptime_seconds", "Uptime in seconds", "gauge", f"{measures.uptime_milliseconds / 1_000:.3f}"),
    )
    return "\n".join(
        f"# HELP claude_code_{name} {words}\n# TYPE claude_code_{name} {kind}\nclaude_code_{name} {value}\n"
        for name, words, kind, value in families
    )


def _components(facts: Facts) -> models.Components:
    return models.Components(
        durable_objects=_stores(facts),
        containers=_agents(facts),
        github_app=models.Configured.of(facts.github.is_configured),
        claude_config=models.Configured.of(facts.has_key),
        rate_limit=models.Configured.of(True),
    )


def _stores(facts: Facts) -> models.Component:
    if not facts.is_stored:
        return models.Component(status="unavailable", message=f"Postgres: {facts.postgres}")
    if facts.nats != OK:
        return models.Component(status="degraded", message=f"NATS: {facts.nats}; sessions wait until it is back")
    return models.Component(status="operational", message="Postgres and NATS answer")


def _agents(facts: Facts) -> models.Component:
    if not facts.is_stored:
        return models.Component(status="unavailable", message="not known while Postgres is away")
    if not facts.agents:
        return models.Component(status="unavailable", message="no agent lives: sessions wait until one does")
    capacity = sum(agent.capacity for agent in facts.agents)
    words = f"{len(facts.agents)} live, for {capacity} runs at once; {facts.work.active} of this API are under way"
    return models.Component(status="operational", message=words)


def _containers(work: Work) -> models.Containers:
    return models.Containers(active=work.active, total=work.started, errors=work.failed)


def _metrics(work: Work, measures: Measures) -> models.HealthMetrics:
    return models.HealthMetrics(
        requests=models.RatedRequests(
            total=measures.total,
            by_route=dict(measures.by_route),
            by_status=dict(measures.by_status),
            success_rate=measures.success_rate,
        ),
        containers=_containers(work),
        average_response_time=measures.average_milliseconds,
        error_rate=measures.error_rate,
    )


def _quota(facts: Facts) -> models.QuotaStanding:
    standing = facts.standing
    reason = standing.reason if facts.is_stored else "not known while Postgres is away"
    return models.QuotaStanding(
        daily_tokens=standing.used.tokens,
        max_daily_tokens=standing.most.tokens or 0,
        remaining_tokens=standing.tokens_left,
        daily_cost=standing.used.usd,
        max_daily_cost=standing.most.usd or 0.0,
        remaining_cost=standing.usd_left,
        active_sessions=standing.sessions,
        max_concurrent_sessions=standing.most_sessions,
        allowed=reason is None,
        reason=reason or "within the quota",
    )
