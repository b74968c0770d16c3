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
    assert given <= known.keys()
    assert {name for name, required in known.items() if required} <= given


@pytest.mark.parametrize("service", [*SETTINGS, "postgres", "nats", "offline-model"])
def test_every_service_is_watched_restarted_and_reaped(service: str):
    told = COMPOSE["services"][service]
    assert told["init"] is True
    assert told["restart"] == "unless-stopped"
    assert told["healthcheck"]["test"][0] == "CMD"


def test_secrets_have_no_default_and_stand_in_the_example():
    text = (DEPLOY / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked == {
        "POSTGRES_PASSWORD",
        "NATS_PASSWORD",
        "QUARTERDECK_VCS_TOKEN",
        "QUARTERDECK_API_KEY",
        "ANTHROPIC_API_KEY",
    }
    example = (DEPLOY / ".env.example").read_text()
    assert {name for name in asked if re.search(rf"(?m)^{name}=$", example)} == asked


def test_agents_and_vcs_share_a_volume_at_one_path():
    shared = {service: COMPOSE["services"][service]["volumes"] for service in ("agent", "vcs")}
    assert shared["agent"] == shared["vcs"]
    root = COMPOSE["services"]["vcs"]["environment"]["QUARTERDECK_VCS_ROOT"]
    assert shared["vcs"] == [f"work:{root}"]
