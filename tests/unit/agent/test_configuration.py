"""The narrowest level that says something is heard, field by field; a key goes nowhere that its level did not mean."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet

from services.agent.configuration import Configuration, ConfigurationError, resolve
from services.agent.settings import DEFAULT_MODEL, AgentSettings
from services.contracts.agents import SET, AgentDefaults, Budget, ClientSettings, HttpServer, StdioServer
from services.contracts.rest import JobOptions
from services.contracts.words import Effort, JobKind, PermissionMode
from services.jobs.models import ClaimedRun, Hold, Spent
from services.jobs.sealed import client_owner, job_owner
from services.runtime.sealing import Sealer

JOB, CLIENT = UUID(int=1), UUID(int=2)
OWN = "https://own.example"
LISTED = "https://one.example,https://two.example"
SEALER = Sealer(Fernet.generate_key().decode())

# Per field: what the job, the client and the agent say, in JSON and in the environment, and what comes of the agent's.
FIELDS: dict[str, tuple[Any, Any, str, str, Any]] = {
    "model": ("of-job", "of-client", "CLAUDE_MODEL", "of-agent", "of-agent"),
    "max_tokens": (1_000, 2_000, "CLAUDE_MAX_TOKENS", "3000", 3_000),
    "temperature": (0.0, 0.2, "CLAUDE_TEMPERATURE", "0.3", 0.3),
    "effort": ("low", "medium", "QUARTERDECK_EFFORT", "max", "max"),
    "max_turns": (1, 2, "QUARTERDECK_MAX_TURNS", "3", 3),
    "system_prompt": ("of job", "of client", "QUARTERDECK_SYSTEM_PROMPT", "of agent", "of agent"),
    "permission_mode": ("plan", "bypassPermissions", "QUARTERDECK_PERMISSION_MODE", "acceptEdits", "acceptEdits"),
    "allowed_commands": ([], ["b", "c"], "QUARTERDECK_ALLOWED_COMMANDS", "d", ["d"]),
    "network": (False, True, "QUARTERDECK_NETWORK", "true", True),
    "run_budget": ({}, {"tokens": 7}, "QUARTERDECK_RUN_BUDGET_USD", "2", {"usd": 2.0}),
    "allow_unpriced": (False, True, "QUARTERDECK_ALLOW_UNPRICED", "true", True),
    "base_url": ("https://one.example", "https://two.example", "ANTHROPIC_BASE_URL", OWN, OWN),
}


def agent(monkeypatch: pytest.MonkeyPatch, **variables: str) -> AgentSettings:
    needed = {
        "DATABASE_URL": "postgresql://nobody@nowhere/db",
        "NATS_URL": "nats://nowhere:4222",
        "QUARTERDECK_VCS_TOKEN": "a token",
        "ANTHROPIC_API_KEY": "key-of-server",
        "ANTHROPIC_BASE_URL": OWN,
        "MODEL_BASE_URLS": LISTED,
    }
    for name, value in (needed | variables).items():
        monkeypatch.setenv(name, value)
    return AgentSettings()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> AgentSettings:
    return agent(monkeypatch)


def claimed(
    options: Mapping[str, Any] | None = None,
    client: Mapping[str, Any] | None = None,
    sealed: Sequence[bytes] = (),
) -> ClaimedRun:
    """A claimed run of the job and client above; ``options`` and ``client`` by their JSON names."""
    return ClaimedRun(
        hold=Hold(UUID(int=3), JOB, 1, UUID(int=4)),
        kind=JobKind.TASK,
        prompt="say hello",
        name=None,
        options=JobOptions.model_validate(options or {}),
        repository=None,
        base_ref=None,
        base_sha=None,
        branch=None,
        turns=0,
        attempts_spent=0,
        seconds_left=60,
        created_at=datetime(2026, 1, 31, tzinfo=UTC),
        messages=(),
        tree=None,
        client_id=CLIENT,
        client_settings=ClientSettings.model_validate(client or {}),
        sealed=sealed,
        head=None,
        spent=Spent(),
        is_budgeted=False,
        outputs={},
    )


def of_job(key: str) -> bytes:
    return SEALER.seal({"anthropicApiKey": key}, owner=job_owner(JOB))


def of_client(key: str | None = None, servers: Mapping[str, Mapping[str, str]] | None = None) -> bytes:
    return SEALER.seal({"anthropicApiKey": key, "mcpServers": servers or {}}, owner=client_owner(CLIENT))


def as_json(name: str, configuration: Configuration) -> Any:
    value = getattr(configuration, name)
    if isinstance(value, Budget):
        return value.model_dump(exclude_none=True)
    return list(value) if isinstance(value, tuple) else value


def test_every_field_that_can_be_set_is_tried() -> None:
    assert set(FIELDS) == set(AgentDefaults.model_fields)


@pytest.mark.parametrize("name", FIELDS)
def test_the_job_is_heard_before_the_client_and_the_client_before_the_agent(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, client, variable, given, own = FIELDS[name]
    settings = agent(monkeypatch, **{variable: given})
    alias = AgentDefaults.model_fields[name].alias or name
    keys = [of_job("key-of-job")] if name == "base_url" else []  # the server's would go to its own address alone

    def result(of_job: Mapping[str, Any], of_client: Mapping[str, Any], sealed: Sequence[bytes] = keys) -> Any:
        return as_json(name, resolve(claimed(of_job, of_client, sealed), settings, SEALER))

    assert result({alias: job}, {alias: client}) == job
    assert result({}, {alias: client}) == client
    assert result({}, {}, ()) == own
    assert result({alias: None}, {alias: None}, ()) == own


def test_where_nobody_says_anything_the_defaults_hold(settings: AgentSettings) -> None:
    found = resolve(claimed(), settings, Sealer(None))
    assert (found.model, found.max_tokens, found.max_turns) == (DEFAULT_MODEL, 64_000, 100)
    assert (found.temperature, found.effort, found.system_prompt) == (None, None, None)
    assert (found.permission_mode, found.allowed_commands) == (PermissionMode.ACCEPT_EDITS, None)
    assert (found.run_budget, found.network, found.allow_unpriced) == (Budget(usd=5.0), False, False)
    assert (found.base_url, found.api_key.get_secret_value()) == (OWN, "key-of-server")
    assert found.notes == ()


def test_fields_come_from_different_levels_at_once(settings: AgentSettings) -> None:
    found = resolve(claimed({"effort": "low"}, {"effort": "max", "maxTurns": 3}), settings, SEALER)
    assert (found.effort, found.max_turns, found.max_tokens) == (Effort.LOW, 3, 64_000)


def test_the_key_of_the_narrowest_level_is_used(settings: AgentSettings) -> None:
    both = claimed(client={"anthropicApiKey": SET}, sealed=[of_job("key-of-job"), of_client("key-of-client")])
    alone = claimed(client={"anthropicApiKey": SET}, sealed=[of_client("key-of-client")])
    assert resolve(both, settings, SEALER).api_key.get_secret_value() == "key-of-job"
    assert resolve(alone, settings, SEALER).api_key.get_secret_value() == "key-of-client"
    assert "key-of" not in repr(resolve(both, settings, SEALER))


ONE, TWO = {"baseUrl": "https://one.example"}, {"baseUrl": "https://two.example"}


@pytest.mark.parametrize(
    ("job", "client", "keys", "expected"),
    [
        ({}, {}, "", "server own"),
        ({"baseUrl": f"{OWN}/"}, {}, "", "server own"),
        ({}, {}, "job", "job own"),
        ({}, {}, "client", "client own"),
        ({}, ONE, "client", "client one"),
        ({}, ONE, "job", "job one"),
        (ONE, {}, "job", "job one"),
        (ONE, TWO, "job client", "job one"),
        (ONE, ONE, "client", "client one"),
        ({"baseUrl": OWN}, {}, "client", "client own"),
        # What would go where its own level did not send it:
        (ONE, {}, "", "the job names an address of its own and no key for it, and the server's key is not sent there"),
        ({}, ONE, "", "the client names an address of its own and no key for it, and the server's key is not sent"),
        (ONE, {}, "client", "the job names an address of its own and no key for it, and the client's key is not"),
        (ONE, TWO, "client", "the client's key is not sent there"),
        ({"baseUrl": OWN}, TWO, "client", "the client's key is not sent there"),
        ({"baseUrl": OWN}, TWO, "", "server own"),
        # What nobody has listed:
        ({"baseUrl": "https://three.example"}, {}, "job", "baseUrl: this server does not allow this address"),
        ({}, {"baseUrl": "http://one.example"}, "client", "baseUrl: this server does not allow this address"),
    ],
)
def test_a_key_and_the_address_of_its_level_belong_together(
    job: dict[str, str], client: dict[str, str], keys: str, expected: str, settings: AgentSettings
) -> None:
    seals = {"job": of_job("key-of-job"), "client": of_client("key-of-client")}
    run = claimed(job, client, [seals[level] for level in keys.split()])
    try:
        found = resolve(run, settings, SEALER)
        outcome = f"{found.api_key.get_secret_value()} {found.base_url}"
    except ConfigurationError as error:
        outcome = str(error)
        assert "key-of" not in outcome
    words = {"own": OWN, "one": "https://one.example"}
    level, _, address = expected.partition(" ")
    assert (f"key-of-{level} {words[address]}" if address in words else expected) in outcome


@pytest.mark.parametrize(
    ("sealed", "words"),
    [
        ([SEALER.seal({"anthropicApiKey": "x"}, owner=client_owner(UUID(int=9)))], "belongs to somebody else"),
        ([SEALER.seal({"anthropicApiKey": "x"}, owner=job_owner(UUID(int=9)))], "belongs to somebody else"),
        ([of_job("a"), of_job("a")], "stands in two places"),
        ([b"damaged"], "cannot be opened"),
    ],
)
def test_secrets_of_others_are_refused(sealed: Sequence[bytes], words: str, settings: AgentSettings) -> None:
    with pytest.raises(ConfigurationError, match=words):
        resolve(claimed(sealed=sealed), settings, SEALER)


def test_a_key_that_is_lost_is_never_replaced_by_a_wider_one(settings: AgentSettings) -> None:
    with pytest.raises(ConfigurationError, match="lost"):
        resolve(claimed(client={"anthropicApiKey": SET}), settings, SEALER)


def test_without_a_key_of_ones_own_secrets_are_told_to_be_closed(settings: AgentSettings) -> None:
    with pytest.raises(ConfigurationError, match="QUARTERDECK_SECRET_KEY is not set"):
        resolve(claimed(sealed=[of_job("x")]), settings, Sealer(None))


@pytest.mark.parametrize("retired", ["claude-3-7-sonnet-20250219", "claude-3-7-sonnet-latest", "claude-3-7-sonnet"])
@pytest.mark.parametrize(("own", "instead"), [("own-model", "own-model"), (None, DEFAULT_MODEL)])
def test_a_retired_model_is_replaced_and_that_is_told(
    retired: str, own: str | None, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = agent(monkeypatch, CLAUDE_MODEL=own or retired)
    found = resolve(claimed({"model": retired}), settings, SEALER)
    assert found.model == instead
    (note,) = found.notes
    assert note.startswith(f"{retired} is retired: {instead} is used")


def test_mcp_servers_get_their_secrets_back(settings: AgentSettings) -> None:
    shown = {
        "files": {"type": "stdio", "command": ["serve"], "env": {"TOKEN": SET}},
        "web": {"type": "http", "url": "https://mcp.example/", "headers": {"Authorization": SET}},
    }
    sealed = [of_client(servers={"files": {"TOKEN": "t0ken"}, "web": {"Authorization": "Bearer b"}})]
    found = resolve(claimed(client={"mcpServers": shown}, sealed=sealed), settings, SEALER)
    files, web = found.mcp_servers["files"], found.mcp_servers["web"]
    assert isinstance(files, StdioServer)
    assert isinstance(web, HttpServer)
    assert (files.env, web.headers) == ({"TOKEN": "t0ken"}, {"Authorization": "Bearer b"})
    assert "t0ken" not in repr(found)
    with pytest.raises(ConfigurationError, match=r"mcpServers\.files\.env\.TOKEN: its value is lost"):
        resolve(claimed(client={"mcpServers": shown}), settings, SEALER)
