"""How a run is to be worked on: its job's options over its client's settings over the agent's own. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import SecretStr

from services.agent.settings import DEFAULT_MODEL, AgentSettings
from services.contracts.agents import SET, AgentDefaults, Budget, ClientSettings, McpServer, StdioServer
from services.contracts.words import Effort, PermissionMode
from services.jobs.models import ClaimedRun
from services.jobs.sealed import CLIENT_KEY, MCP_SERVERS, client_owner, job_owner
from services.runtime.base_urls import BaseUrlNotAllowedError, BaseUrls
from services.runtime.sealing import Opener, SealingError

RETIRED_MODELS = ("claude-3-7-sonnet",)
"""The beginnings of their names: each has an alias, and names with a date."""
Value = TypeVar("Value")


class ConfigurationError(Exception):
    """The run cannot be worked on as it is set up; its words name no secret, and trying again helps nothing."""


@dataclass(frozen=True)
class Configuration:
    model: str
    max_tokens: int
    temperature: float | None
    effort: Effort | None
    max_turns: int
    system_prompt: str | None
    base_url: str
    api_key: SecretStr
    permission_mode: PermissionMode
    allowed_commands: tuple[str, ...] | None
    """None: nobody has named any."""
    network: bool
    run_budget: Budget
    allow_unpriced: bool
    mcp_servers: Mapping[str, McpServer] = field(repr=False)
    """With the secrets in their places."""
    notes: tuple[str, ...] = ()
    """What the run's log is to tell of it."""


@dataclass(frozen=True)
class _Level:
    """Where a model service is named: its address, its key, or both."""

    name: str
    base_url: str | None
    api_key: str | None = field(repr=False)


def resolve(run: ClaimedRun, settings: AgentSettings, opener: Opener) -> Configuration:
    """Each setting from the narrowest level that says something. Raises ``ConfigurationError``."""
    of_job, of_client = _secrets(run, opener)
    levels = (
        _Level("job", run.options.base_url, of_job.get(CLIENT_KEY)),
        _Level("client", run.client_settings.base_url, of_client.get(CLIENT_KEY)),
        _Level("server", settings.base_urls.own, settings.anthropic_api_key.get_secret_value()),
    )
    base_url, api_key = _service(levels, settings.base_urls)
    said = (run.options, run.client_settings)
    model, notes = _current(_narrowest(said, "model", settings.model), settings.model)
    commands = _narrowest(said, "allowed_commands", settings.allowed_commands)
    return Configuration(
        model=model,
        max_tokens=_narrowest(said, "max_tokens", settings.max_tokens),
        temperature=_narrowest(said, "temperature", settings.temperature),
        effort=_narrowest(said, "effort", settings.effort),
        max_turns=_narrowest(said, "max_turns", settings.max_turns),
        system_prompt=_narrowest(said, "system_prompt", settings.system_prompt),
        base_url=base_url,
        api_key=SecretStr(api_key),
        permission_mode=_narrowest(said, "permission_mode", settings.permission_mode),
        allowed_commands=tuple(commands) if commands is not None else None,
        network=_narrowest(said, "network", settings.network),
        run_budget=_narrowest(said, "run_budget", settings.run_budget),
        allow_unpriced=_narrowest(said, "allow_unpriced", settings.allow_unpriced),
        mcp_servers=dict(_mcp_servers(run.client_settings, of_client.get(MCP_SERVERS, {}))),
        notes=notes,
    )


def _narrowest(said: Sequence[AgentDefaults], name: str, own: Value) -> Value:
    """``own``: what the agent itself takes; settings that are null say nothing."""
    return next((value for level in said if (value := getattr(level, name)) is not None), own)


def _secrets(run: ClaimedRun, opener: Opener) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The job's, and the client's."""
    owners = (job_owner(run.hold.job_id), client_owner(run.client_id))
    try:
        opened = {found.owner: found.secrets for found in (opener.open(each, owners=owners) for each in run.sealed)}
    except SealingError as error:
        raise ConfigurationError(str(error)) from error
    if len(opened) < len(run.sealed):
        raise ConfigurationError("one stored secret stands in two places: a row was changed by hand; store it anew")
    of_job, of_client = (opened.get(owner, {}) for owner in owners)
    if run.client_settings.anthropic_api_key == SET and CLIENT_KEY not in of_client:
        raise ConfigurationError("the client's anthropic key is lost; store it anew")
    return of_job, of_client


def _service(levels: Sequence[_Level], allowed: BaseUrls) -> tuple[str, str]:
    """Address and key: a key goes to the address that its own level means, and to no other that a narrower names."""
    address = next(level.base_url for level in levels if level.base_url is not None)
    place, key = next((place, level.api_key) for place, level in enumerate(levels) if level.api_key is not None)
    meant = next(level.base_url for level in levels[place:] if level.base_url is not None)
    try:
        address, meant = allowed.allowed(address), allowed.allowed(meant)
    except BaseUrlNotAllowedError as error:
        raise ConfigurationError(f"baseUrl: {error}") from error
    if not allowed.same(address, meant):
        naming = next(level.name for level in levels if level.base_url is not None)
        raise ConfigurationError(
            f"baseUrl: the {naming} names an address of its own and no key for it, and the {levels[place].name}'s key "
            f"is not sent there; give the {naming} a key, or take its baseUrl away"
        )
    return address, key


def _current(model: str, own: str) -> tuple[str, tuple[str, ...]]:
    """``model``, or what takes a retired one's place, which a note tells."""
    if not model.startswith(RETIRED_MODELS):
        return model, ()
    instead = DEFAULT_MODEL if own.startswith(RETIRED_MODELS) else own
    return instead, (f"{model} is retired: {instead} is used in its place; name another model in your settings",)


def _mcp_servers(settings: ClientSettings, secrets: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, McpServer]]:
    for name, server in settings.mcp_servers.items():
        place = "env" if isinstance(server, StdioServer) else "headers"
        shown: Mapping[str, str] = getattr(server, place)
        values = {key: secrets.get(name, {}).get(key) if value == SET else value for key, value in shown.items()}
        if missing := [key for key, value in values.items() if value is None]:
            raise ConfigurationError(f"mcpServers.{name}.{place}.{missing[0]}: its value is lost; store it anew")
        yield name, server.model_copy(update={place: values})
