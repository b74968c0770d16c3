"""The endpoints of health, metrics, configuration and containers: each answer is measured or read when it is asked."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Final

from aiohttp import web

from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.dialects.worker import health, service_models
from services.gateway.dialects.worker.github_look import GitHubLook
from services.gateway.dialects.worker.health import Facts
from services.gateway.dialects.worker.measures import Measures
from services.gateway.dialects.worker.models import now
from services.gateway.dialects.worker.quota import Quota
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.problems import RETRY_AFTER_SECONDS, ProblemError
from services.jobs.measuring import Agent
from services.runtime.postgres import StoreUnavailableError

PROMETHEUS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Service:
    def __init__(self, settings: ServiceSettings, measures: Measures, quota: Quota) -> None:
        self._settings = settings
        self._measures = measures
        self._quota = quota
        self._github = GitHubLook(settings)

    async def health(self, request: web.Request) -> web.StreamResponse:
        """200 while sessions can be taken, else 503."""
        try:
            facts = await self._facts(request)
        except StoreUnavailableError:
            return self.unhealthy(request)
        return self._health(request, facts)

    def unhealthy(self, request: web.Request) -> web.Response:
        """Also for whoever finds that Postgres is away before a handler is asked."""
        facts = Facts.unknown("it cannot be reached", self._settings.daily, self._quota.most_sessions)
        return self._health(request, facts)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        gateway = gateway_of(request)
        work = await gateway.measuring.work(request[CLIENT])
        deliveries = await gateway.webhook.deliveries.totals()
        return json_response(request, health.metrics(work, deliveries, self._measures))

    async def prometheus(self, request: web.Request) -> web.StreamResponse:
        work = await gateway_of(request).measuring.work(request[CLIENT])
        text = health.prometheus(work, self._measures)
        return web.Response(body=text.encode(), headers={"Content-Type": PROMETHEUS_TYPE})

    async def configuration(self, request: web.Request) -> web.StreamResponse:
        gateway = gateway_of(request)
        github = await self._github.find(gateway)
        stored_at = await gateway.measuring.key_stored_at(request[CLIENT])
        has_key = stored_at is not None or self._settings.agents_have_key
        body = service_models.ConfigurationStatus(
            github=service_models.GitHubConfigured(
                configured=github.is_configured,
                app_id=github.app_id,
                owner=github.owner,
                repository_count=github.repositories,
            ),
            claude=service_models.ClaudeConfigured(configured=has_key, setup_at=stored_at),
            github_app_configured=github.is_configured,
            claude_configured=has_key,
            repository_count=github.repositories,
        )
        return json_response(request, body)

    async def _facts(self, request: web.Request) -> Facts:
        gateway, client = gateway_of(request), request[CLIENT]
        measuring = gateway.measuring
        return Facts(
            postgres=health.OK,
            nats=await gateway.bus.check(),
            agents=await measuring.agents(),
            work=await measuring.work(client),
            standing=await self._quota.standing(gateway, client),
            github=await self._github.find(gateway),
            has_key=self._settings.agents_have_key or await measuring.key_stored_at(client) is not None,
            deliveries=await gateway.webhook.deliveries.totals(),
        )

    def _health(self, request: web.Request, facts: Facts) -> web.Response:
        body = health.health(facts, self._measures, environment=self._settings.environment, time=now())
        return json_response(request, body, status=HTTPStatus.OK if facts.is_stored else HTTPStatus.SERVICE_UNAVAILABLE)


async def one(request: web.Request) -> web.StreamResponse:
    """Any agent that lives."""
    return _container(request, secrets.choice(await _living(request)))


async def always_the_same(request: web.Request) -> web.StreamResponse:
    """The agent that lives longest: the same one as long as it does."""
    return _container(request, (await _living(request))[0])


async def _living(request: web.Request) -> list[Agent]:
    agents = await gateway_of(request).measuring.agents()
    if not agents:
        words = "no agent lives at this moment; try again, or ask who runs this server to start one"
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, words, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    return agents


def _container(request: web.Request, agent: Agent) -> web.Response:
    return json_response(request, service_models.ContainerHealth(instance_id=agent.name))


def operations(service: Service) -> tuple[Operation, ...]:
    return (*_service_operations(service), *_CONTAINERS)


def _service_operations(service: Service) -> tuple[Operation, ...]:
    return (
        *(
            Operation(
                method="GET",
                path=path,
                name=name,
                summary="How the server is, with its numbers of the day",
                handler=service.health,
                query=LooseQuery,
                is_public=True,
                answers=(
                    Answer(200, "healthy or degraded", service_models.Health),
                    Answer(503, "unhealthy: the database is away", service_models.Health),
                ),
            )
            for path, name in (("/health", "getHealth"), ("/healthz", "getHealthz"))
        ),
        Operation(
            method="GET",
            path="/metrics",
            name="getMetrics",
            summary="What this process has answered, and what the agents did today",
            handler=service.metrics,
            query=LooseQuery,
            answers=(Answer(200, "the numbers", service_models.Metrics),),
        ),
        Operation(
            method="GET",
            path="/metrics/prometheus",
            name="getPrometheusMetrics",
            summary="The same for Prometheus",
            handler=service.prometheus,
            query=LooseQuery,
            answers=(Answer(200, "Prometheus's text format, 0.0.4", media_type="text/plain"),),
        ),
        Operation(
            method="GET",
            path="/gh-status",
            name="getConfigurationStatus",
            summary="Whether GitHub and Claude are configured",
            handler=service.configuration,
            query=LooseQuery,
            answers=(Answer(200, "what is configured", service_models.ConfigurationStatus),),
        ),
    )


_LIVES = (
    Answer(200, "an agent that lives", service_models.ContainerHealth),
    Answer(503, "none lives"),
)
_CONTAINERS = tuple(
    Operation(method="GET", path=path, name=name, summary=summary, handler=handler, query=LooseQuery, answers=_LIVES)
    for path, name, summary, handler in (
        ("/container", "getContainer", "The health of an agent", one),
        ("/lb", "getBalancedContainer", "The health of an agent, each time any other", one),
        ("/singleton", "getSingletonContainer", "The health of one agent, each time the same", always_the_same),
    )
)
