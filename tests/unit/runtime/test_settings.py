"""A wrong or missing setting is named by its variable, and the process ends with 2."""

from typing import Annotated

import pytest
from pydantic import Field

from services.runtime.settings import EXIT_WRONG_CONFIGURATION, ServiceSettings, load, refuse, split_address


class DeckSettings(ServiceSettings):
    guns: Annotated[int, Field(ge=1)] = 74


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody@host/db")
    monkeypatch.setenv("NATS_URL", "nats://host:4222")


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        load(DeckSettings)
    assert ended.value.code == EXIT_WRONG_CONFIGURATION == 2
    return capsys.readouterr().err


def test_a_good_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_GUNS", "32")
    monkeypatch.setenv("QUARTERDECK_HEALTH_ADDRESS", "127.0.0.1:8081")

    settings = load(DeckSettings)

    assert settings.guns == 32
    assert settings.database_url.get_secret_value() == "postgresql://somebody@host/db"
    assert split_address(settings.health_address or "") == ("127.0.0.1", 8081)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_GUNS", "")

    assert load(DeckSettings).guns == 74


@pytest.mark.parametrize("variable", ["DATABASE_URL", "NATS_URL"])
def test_a_missing_variable_is_named(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(variable)

    assert refusal(capsys) == f"{variable}: is required and not set\n"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QUARTERDECK_GUNS", "0"),
        ("QUARTERDECK_GUNS", "many"),
        ("QUARTERDECK_LOG_LEVEL", "loud"),
        ("QUARTERDECK_DATABASE_POOL", "101"),
        ("QUARTERDECK_DRAIN_SECONDS", "-1"),
        ("QUARTERDECK_HEALTH_ADDRESS", "8081"),
        ("QUARTERDECK_HEALTH_ADDRESS", "host:99999"),
        ("QUARTERDECK_HEALTH_ADDRESS", ":80"),
    ],
)
def test_a_wrong_value_names_its_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)

    said = refusal(capsys)

    assert said.startswith(f"{variable}: ")
    assert said.count("\n") == 1


def test_all_wrong_variables_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NATS_URL")
    monkeypatch.setenv("QUARTERDECK_GUNS", "0")

    assert {line.partition(":")[0] for line in refusal(capsys).splitlines()} == {"NATS_URL", "QUARTERDECK_GUNS"}


def test_secrets_are_not_shown() -> None:
    assert "somebody" not in repr(load(DeckSettings))


def test_what_only_use_proves_wrong_ends_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        refuse("QUARTERDECK_DATA", "is not a folder")

    assert ended.value.code == EXIT_WRONG_CONFIGURATION
    assert capsys.readouterr().err == "QUARTERDECK_DATA: is not a folder\n"


@pytest.mark.parametrize(("variable", "example"), [("DATABASE_URL", "postgresql://"), ("NATS_URL", "nats://")])
def test_an_address_of_another_kind_is_named(
    variable: str, example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "mysql://host/db")
    told = refusal(capsys)
    assert told.startswith(f"{variable}: must be a URL")
    assert example in told
