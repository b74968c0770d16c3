"""What `limits set` makes of its options: what is named changes, and nothing else."""

import pytest
from typer.testing import CliRunner

from quarterdeck.cli.app import app
from quarterdeck.cli.limits import Change, Slots
from services.contracts.limits import Limits

NAMES = ("client", "repository", "queuedJobs")
NOW = Limits.model_validate(
    {
        "fleet": 7,
        "queues": {"code": 5, "task": 2},
        "client": {"default": 3, "byName": {"default": 4, "other": 2}},
        "repository": {"byName": {"https://a.invalid/b.git": 1}},
        "queuedJobs": {"default": 100},
    }
)


def change(
    *, fleet: dict[str, Slots] | None = None, queues: dict[str, Slots] | None = None, **named: dict[str, Slots]
) -> Change:
    return Change(fleet=fleet or {}, queues=queues or {}, named={name: named.get(name, {}) for name in NAMES})


def test_what_is_not_named_stays_as_it_is() -> None:
    expected = NOW.model_copy(update={"fleet": 9})
    assert change(fleet={"fleet": 9}).of(NOW) == expected


def test_a_client_called_default_keeps_its_own_limit() -> None:
    client = change(client={"default": 8, "new": 1}).of(NOW).client
    assert (client.default, client.by_name) == (8, {"default": 4, "other": 2, "new": 1})


def test_none_removes_a_limit() -> None:
    changed = change(
        fleet={"fleet": None},
        queues={"code": None},
        client={"default": None, "other": None, "nobody": None},
        repository={"https://a.invalid/b.git": None},
    ).of(NOW)
    assert (changed.fleet, changed.queues.code, changed.queues.task) == (None, None, 2)
    assert (changed.client.default, changed.client.by_name) == (None, {"default": 4})
    assert changed.repository.by_name == {}
    assert changed.queued_jobs == NOW.queued_jobs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name at least one limit"),
        (("--fleet", "some"), "--fleet some: must be a number, or `none`"),
        (("--fleet", "-1"), "--fleet -1: must be a number"),
        (("--queue", "publish=1"), "--queue publish: there are the queues code, task, review"),
        (("--client", "5"), "--client 5: must be NAME=SLOTS"),
        (("--queued", "=5"), "--queued =5: must be NAME=SLOTS"),
        (("--repository", "https://a.invalid/b.git="), "--repository : must be a number"),
    ],
)
def test_a_limit_that_cannot_be_is_named_before_anything_is_asked(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTERDECK_ADDRESS", "http://127.0.0.1:1")  # no socket may be opened here
    monkeypatch.setenv("COLUMNS", "200")
    refused = CliRunner().invoke(app, ["limits", "set", *words])
    assert refused.exit_code == 2
    assert message in refused.output


@pytest.mark.parametrize("option", [("--json",), ("--data-dir", "elsewhere")])
def test_options_of_the_reading_command_are_not_lost_on_the_writing_one(option: tuple[str, ...]) -> None:
    refused = CliRunner().invoke(app, ["limits", *option, "set", "--fleet", "1"])
    assert refused.exit_code == 2
    assert "belong behind `set`" in refused.output
