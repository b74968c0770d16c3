"""Codebot's words: names of branches and pull requests, states, settings, its errors and its document."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies
from openapi_spec_validator import validate
from pydantic import TypeAdapter, ValidationError

from services.contracts.model import BranchName
from services.contracts.rest import Problem
from services.contracts.words import JobState
from services.gateway.dialects.codebot import codebot, render
from services.gateway.dialects.codebot.models import SubmitRequest, TaskStatus
from services.gateway.dialects.codebot.naming import branch_name, new_mark, pull_request_title
from services.gateway.dialects.codebot.settings import CodebotSettings
from services.gateway.dialects.codebot.tasks import STATES, job_request, status_of
from services.gateway.dialects.openapi import document
from services.runtime.settings import EXIT_WRONG_CONFIGURATION, load

PAGE = (Path(__file__).parents[3] / "docs" / "codebot.md").read_text()
MARK = "abc1234"


@pytest.mark.parametrize(
    ("ticket_id", "summary", "name"),
    [
        (None, None, "u/codebot/abc1234"),
        ("FEAT-123", None, "u/codebot/FEAT-123/abc1234"),
        (None, "add-dark-mode", "u/codebot/abc1234/add-dark-mode"),
        ("FEAT-123", "add-dark-mode", "u/codebot/FEAT-123/abc1234/add-dark-mode"),
        ("../../main", "x.lock", "u/codebot/main/abc1234/x-lock"),
        ("a b/c~1^{}", "Add: dark\nmode!", "u/codebot/a-b-c-1/abc1234/Add-dark-mode"),
        ("日本", "-", "u/codebot/abc1234"),
    ],
)
def test_branches(ticket_id: str | None, summary: str | None, name: str) -> None:
    assert branch_name(ticket_id, summary, MARK) == name


@pytest.mark.parametrize("text", ["x" * 250, ".", "@{", "a..b", "\\", "a" * 59 + "-b", "\u202e", "a\u0300"])
def test_every_branch_is_one_that_git_takes(text: str) -> None:
    TypeAdapter(BranchName).validate_python(branch_name(text, text, MARK))


def test_marks_are_seven_hex_digits_and_differ() -> None:
    marks = {new_mark() for _ in range(50)}
    assert all(re.fullmatch(r"[0-9a-f]{7}", mark) for mark in marks)
    assert len(marks) > 45


@pytest.mark.parametrize(
    ("summary", "description", "title"),
    [
        ("add-dark-mode", "anything", "add-dark-mode"),
        ("two\n lines", "anything", "two lines"),
        (None, "\n  Add dark mode \nand light mode", "Add dark mode"),
        (None, "x" * 300, "x" * 100),
    ],
)
def test_titles(summary: str | None, description: str, title: str) -> None:
    assert pull_request_title(summary, description) == title


@given(*[strategies.text(min_size=1, max_size=300)] * 4)
def test_everything_that_is_taken_makes_a_job(url: str, description: str, ticket_id: str, summary: str) -> None:
    fields = {"repository_url": url, "description": description, "ticket_id": ticket_id, "ticket_summary": summary}
    try:
        wanted = SubmitRequest.model_validate(fields)
    except ValidationError:
        return
    request = job_request(wanted, MARK, retention=timedelta(days=3_650))
    assert request.prompt == description
    assert MARK in str(request.repositories[0].branch)


def test_every_state_has_a_status_and_a_filter_that_finds_it() -> None:
    for state in JobState:
        assert [status for status in TaskStatus if state in STATES[status]] == [status_of(state)]


def test_errors_have_two_fields() -> None:
    problem = Problem(title="x", status=405, detail="POST cannot be used here")
    assert render(problem).model_dump() == {"error": "Method Not Allowed", "message": "POST cannot be used here"}


def test_without_a_key_it_is_not_served() -> None:
    assert codebot(CodebotSettings(api_keys="")) is None
    assert codebot(CodebotSettings(api_keys=" , ,")) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CODEBOT_API_KEYS", "good,not good"),
        ("CODEBOT_API_KEYS", "ü"),
        ("CODEBOT_MAX_WORKERS", "0"),
        ("CODEBOT_MAX_WORKERS", "many"),
        ("CODEBOT_MAX_QUEUE_SIZE", "-1"),
        ("CODEBOT_TASK_RETENTION", "0"),
        ("QUARTERDECK_CODEBOT_PORT", "70000"),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        load(CodebotSettings)
    assert ended.value.code == EXIT_WRONG_CONFIGURATION
    said = capsys.readouterr().err
    assert variable in said
    assert "good,not good" not in said


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEBOT_API_KEYS", "secret-key-1, secret-key-2")
    monkeypatch.setenv("CODEBOT_MAX_WORKERS", "4")
    settings = load(CodebotSettings)
    assert settings.keys == ["secret-key-1", "secret-key-2"]
    assert "secret-key" not in repr(settings)
    assert (settings.limits.slots.most, settings.limits.slots.is_told) == (4, True)
    assert (settings.limits.queued.most, settings.limits.queued.is_told) == (100, False)
    assert settings.task_retention_seconds == 86_400


def test_every_variable_is_on_the_page() -> None:
    variables = {str(field.validation_alias) for field in CodebotSettings.model_fields.values()}
    assert {name for name in variables if f"`{name}`" not in PAGE} == set()


@pytest.fixture
def description() -> dict[str, Any]:
    dialect = codebot(CodebotSettings(api_keys="k"))
    assert dialect is not None
    found: dict[str, Any] = orjson.loads(document(dialect, "/codebot"))
    return found


def test_the_document_is_valid_and_has_its_own_errors(description: dict[str, Any]) -> None:
    validate(description)
    assert set(description["components"]["schemas"]["Error"]["properties"]) == {"error", "message"}
    assert "Problem" not in description["components"]["schemas"]
    assert description["security"] == [{"bearer": []}, {"apiKey": []}]


def test_the_document_has_the_fields_of_the_models(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    assert schemas["SubmitRequest"]["required"] == ["repository_url", "description"]
    assert set(schemas["SubmitRequest"]["properties"]) == set(SubmitRequest.model_fields)
    assert {"result", "error"} <= set(schemas["TaskState"]["properties"])
    assert not {"result", "error"} & set(schemas["TaskState"]["required"])
    parameters = {each["name"]: each for each in description["paths"]["/api/tasks"]["get"]["parameters"]}
    assert parameters["limit"]["schema"] == {"type": "integer", "default": 100, "minimum": 1, "maximum": 1000}
    assert parameters["status"]["schema"] == {"$ref": "#/components/schemas/TaskStatus"}
