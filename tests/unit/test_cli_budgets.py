"""What `budgets set` makes of its options: what is named changes, and nothing else."""

import pytest
from typer.testing import CliRunner

from quarterdeck.cli.app import app
from quarterdeck.cli.budgets import Change
from services.contracts.agents import Budget
from services.contracts.spending import Budgets

NOW = Budgets.model_validate(
    {
        "day": {"usd": 100.0},
        "client": {"default": {"tokens": 1_000}, "byName": {"default": {"usd": 4.0}, "other": {"usd": 2.0}}},
        "clientDay": {"default": {"usd": 1.0}},
    }
)


def change(*, day: Budget | None = None, **named: dict[str, Budget | None]) -> Change:
    scopes = {name: named.get(name, {}) for name in ("client", "clientDay")}
    return Change(day={} if day is None else {"default": day}, named=scopes)


def test_what_is_not_named_stays_as_it_is() -> None:
    expected = NOW.model_copy(update={"day": Budget(tokens=9)})
    assert change(day=Budget(tokens=9)).of(NOW) == expected


def test_a_client_called_default_keeps_its_own_budget() -> None:
    client = change(client={"default": Budget(usd=8), "new": Budget(tokens=1)}).of(NOW).client
    assert client.default == Budget(usd=8)
    assert client.by_name == {"default": Budget(usd=4), "other": Budget(usd=2), "new": Budget(tokens=1)}


def test_no_limit_is_not_the_same_as_the_default() -> None:
    client = change(client={"default": Budget(), "other": None, "nobody": None, "new": Budget()}).of(NOW).client
    assert client.default == Budget()
    assert client.by_name == {"default": Budget(usd=4), "new": Budget()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name at least one budget"),
        (("--day", "some"), "--day some: must be such as `20`, `20usd`"),
        (("--day", "-1"), "--day -1: must be such as"),
        (("--day", "5,6usd"), "--day 5,6usd: must be such as"),
        (("--day", "5.5tokens"), "--day 5.5tokens: must be such as"),
        (("--day", "1000001"), "--day 1000001: Input should be less than or equal to 1000000"),
        (("--day", "default"), "--day default: must be such as"),
        (("--client", "5"), "--client 5: must be NAME=AMOUNT"),
        (("--client", "default=default"), "--client default: must be such as"),
        (("--client-day", "=5"), "--client-day =5: must be NAME=AMOUNT"),
    ],
)
def test_a_budget_that_cannot_be_is_named_before_anything_is_asked(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTERDECK_ADDRESS", "http://127.0.0.1:1")  # no socket may be opened here
    monkeypatch.setenv("COLUMNS", "200")
    refused = CliRunner().invoke(app, ["budgets", "set", *words])
    assert refused.exit_code == 2
    assert message in refused.output


@pytest.mark.parametrize("option", [("--json",), ("--data-dir", "elsewhere")])
def test_options_of_the_reading_command_are_not_lost_on_the_writing_one(option: tuple[str, ...]) -> None:
    refused = CliRunner().invoke(app, ["budgets", *option, "set", "--day", "1"])
    assert refused.exit_code == 2
    assert "belong behind `set`" in refused.output
