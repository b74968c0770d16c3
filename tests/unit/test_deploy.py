"""The compose file says what the services' settings know, and keeps to what every service needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from services.agent.settings import AgentSettings
from services.gateway.settings import GatewaySettings
from services.scheduler.settings import SchedulerSettings
from services.vcs.settings import VcsSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SETTINGS: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "agent": AgentSettings,
    "vcs": VcsSettings,
}


PROXIES = {"HTTPS_PROXY", "http_proxy", "NO_PROXY"}


def variables(settings: type[BaseSettings]) -> dict[str, bool]:
    """Each variable that the class reads, and whether it must be set."""
    found: dict[str, bool] = {}
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [alias or f"QUARTERDECK_{name.upper()}"]
        found |= {str(each): field.is_required() and len(names) == 1 for each in names}
    return found


@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_is_given_what_it_needs_and_nothing_it_does_not_know(service: str):
    known = variables(SETTINGS[service])
    given = COMPOSE["services"][service]["environment"].keys()
    assert given - PROXIES <= known.keys()
    assert {name for name, required in known.items() if required} <= given


@pytest.mark.parametrize("service", [*SETTINGS, "postgres", "nats", "offline-model"])
def test_every_service_is_watched_restarted_and_reaped(service: str):
    told = COMPOSE["services"][service]
    assert told["init"] is True
    assert told["restart"] == "unless-stopped"
    assert told["healthcheck"]["test"][0] == "CMD"


def test_secrets_have_no_default_and_stand_empty_in_the_example():
    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    example = (DEPLOY / ".env.example").read_text()
    assert asked == set(re.findall(r"(?m)^(\w+)=$", example))
    assert {"POSTGRES_PASSWORD", "QUARTERDECK_API_KEY", "QUARTERDECK_VCS_TOKEN", "ANTHROPIC_API_KEY"} <= asked


def test_agents_find_worktrees_where_vcs_makes_them():
    services = COMPOSE["services"]
    assert services["agent"]["volumes"] == services["vcs"]["volumes"]
    _, _, mounted = services["vcs"]["volumes"][0].partition(":")
    root = services["vcs"]["environment"]["QUARTERDECK_VCS_ROOT"]
    assert Path(root).is_relative_to(mounted)


def test_nats_knows_every_user_that_a_service_comes_as():
    users = set(re.findall(r"user: *\"?(\w+)", (DEPLOY / "nats.conf").read_text()))
    urls = " ".join(COMPOSE["services"][name]["environment"]["NATS_URL"] for name in SETTINGS)
    assert set(re.findall(r"nats://(\w+):", urls)) == set(SETTINGS) <= users
