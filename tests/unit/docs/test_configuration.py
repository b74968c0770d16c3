"""The page on configuration names every variable of the gateway and the agent, and every default as it is."""

import re
from enum import Enum
from pathlib import Path

import pytest
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from services.agent.settings import AgentSettings
from services.contracts.agents import AgentDefaults
from services.contracts.rest import RetryOptions
from services.gateway.settings import GatewaySettings
from services.vcs.settings import VcsSettings

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]


def variables(settings: type[BaseSettings]) -> dict[str, object]:
    """Each variable with its default."""
    found: dict[str, object] = {}
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        names = [str(each) for each in alias.choices] if isinstance(alias, AliasChoices) else [str(alias or "")]
        for each in names:
            found[each or f"QUARTERDECK_{name.upper()}"] = field.default
    return found


@pytest.mark.parametrize("settings", [AgentSettings, GatewaySettings, VcsSettings])
def test_every_variable_is_on_the_page(settings: type[BaseSettings]) -> None:
    assert {name for name in variables(settings) if f"`{name}`" not in PAGE} == set()


def test_a_default_on_the_page_is_the_default() -> None:
    defaults = variables(AgentSettings) | variables(GatewaySettings) | variables(VcsSettings)
    compared = 0
    for row in ROWS:
        names = [name for cell in row for name in re.findall(r"`([A-Z_]+)`", cell)]
        if len(names) != 1 or (default := defaults.get(names[0])) in (None, ""):
            continue
        if isinstance(default, str | int | float) and "required" not in row:
            value = default.value if isinstance(default, Enum) else default
            assert f"`{str(value).lower() if isinstance(value, bool) else value}`" in row, names
            compared += 1
    assert compared > 8


def test_every_setting_of_jobs_and_clients_is_in_the_table() -> None:
    told = set(re.findall(r"`(\w+)(?:\.\w+)?`", " ".join(row[0] for row in ROWS)))
    assert {field.alias for field in AgentDefaults.model_fields.values()} <= told
    assert {
        name for name in (field.alias for field in RetryOptions.model_fields.values()) if f"`{name}`" not in PAGE
    } == set()
