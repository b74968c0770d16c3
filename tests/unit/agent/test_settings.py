"""What the agent is told by its environment, and how it names what is wrong."""

import base64
from pathlib import Path

import pytest

from services.agent.settings import AgentSettings
from services.contracts.agents import Budget
from services.contracts.words import Effort, PermissionMode
from services.runtime.settings import load

NEEDED = {
    "DATABASE_URL": "postgresql://somebody@host/db",
    "NATS_URL": "nats://host:4222",
    "QUARTERDECK_VCS_TOKEN": "a token",
    "ANTHROPIC_API_KEY": "a key",
}

SECRET_KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)


def test_the_defaults() -> None:
    settings = load(AgentSettings)
    assert (settings.max_turns, settings.max_tokens, settings.temperature) == (100, 64_000, None)
    assert settings.run_budget == Budget(usd=5.0)
    assert (settings.permission_mode, settings.allowed_commands) == (PermissionMode.ACCEPT_EDITS, None)
    assert (settings.sandbox, settings.sandbox_paths, settings.network) == ("auto", (), False)


def test_everything_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "CLAUDE_MODEL": "some-model",
        "CLAUDE_MAX_TOKENS": "1000",
        "CLAUDE_TEMPERATURE": "0.5",
        "QUARTERDECK_EFFORT": "high",
        "QUARTERDECK_MAX_TURNS": "7",
        "QUARTERDECK_SYSTEM_PROMPT": "be brief",
        "QUARTERDECK_PERMISSION_MODE": "plan",
        "QUARTERDECK_ALLOWED_COMMANDS": "make test, git status *,",
        "QUARTERDECK_NETWORK": "true",
        "QUARTERDECK_RUN_BUDGET_USD": "none",
        "QUARTERDECK_RUN_BUDGET_TOKENS": "9000",
        "QUARTERDECK_ALLOW_UNPRICED": "true",
        "SANDBOX": "none",
        "SANDBOX_PATHS": "/opt/a:/opt/b",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load(AgentSettings)
    assert (settings.model, settings.max_tokens, settings.temperature) == ("some-model", 1_000, 0.5)
    assert (settings.effort, settings.max_turns, settings.system_prompt) == (Effort.HIGH, 7, "be brief")
    assert settings.permission_mode is PermissionMode.PLAN
    assert settings.allowed_commands == ("make test", "git status *")
    assert (settings.network, settings.allow_unpriced) == (True, True)
    assert settings.run_budget == Budget(usd=None, tokens=9_000)
    assert (settings.sandbox, settings.sandbox_paths) == ("none", (Path("/opt/a"), Path("/opt/b")))


def test_a_command_with_a_comma_goes_into_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_ALLOWED_COMMANDS", '["cut -f 1,2 *"]')
    assert load(AgentSettings).allowed_commands == ("cut -f 1,2 *",)


@pytest.mark.parametrize("other", ["CLAUDE_API_KEY"])
def test_the_key_has_two_names(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv(other, "another key")
    assert load(AgentSettings).anthropic_api_key.get_secret_value() == "another key"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("QUARTERDECK_SECRET_KEY", "short", "32 bytes in URL-safe base64"),
        ("QUARTERDECK_SECRET_KEY", f"{SECRET_KEY},x", "make one by"),
        ("MODEL_BASE_URLS", "models.example", "http:// or https://"),
        ("ANTHROPIC_BASE_URL", "https://a.example/?x", "no user, password, query"),
        ("CLAUDE_TEMPERATURE", "1.5", "less than or equal to 1"),
        ("QUARTERDECK_EFFORT", "utmost", "'low'"),
        ("QUARTERDECK_RUN_BUDGET_USD", "-1", "greater than or equal to 0"),
        ("QUARTERDECK_ALLOWED_COMMANDS", '["a', "JSON array"),
        ("SANDBOX", "off", "'auto' or 'none'"),
        ("SANDBOX_PATHS", "/opt:here", "absolute path"),
    ],
)
def test_a_wrong_setting_is_named_and_ends_the_process(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit):
        load(AgentSettings)
    told = capsys.readouterr().err
    assert told.startswith(f"{variable}: ")
    assert words in told
