"""Cody Batch's words: names, patterns, states, settings, threads, its errors and its document."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, strategies
from openapi_spec_validator import validate
from pydantic import SecretStr
from structlog.testing import capture_logs

from quarterdeck.cli.published import APIS
from quarterdeck.cli.published import Dialect as Published
from quarterdeck.stack.errors import StackStartError
from services.contracts.rest import Problem, ProblemField, Run, Transcript
from services.contracts.words import ExitReason, JobState, OnExisting, Publish, RunState
from services.gateway.dialects.cody_batch import cody_batch, from_environment, render
from services.gateway.dialects.cody_batch.allowed import Allowed, is_full_name
from services.gateway.dialects.cody_batch.jobs import (
    STATES,
    Source,
    job_request,
    run_error,
    run_status,
    status_of,
    were_changes_necessary,
)
from services.gateway.dialects.cody_batch.models import JobBody, JobStatus, RepositoryStatus
from services.gateway.dialects.cody_batch.naming import job_id_of, job_name, kept_names, name_of, names_in
from services.gateway.dialects.cody_batch.settings import MOST_REPOSITORIES, UNUSED, CodySettings
from services.gateway.dialects.cody_batch.threads import thread
from services.gateway.dialects.openapi import document
from services.gateway.dialects.unused import tell_unused
from services.runtime.settings import EXIT_WRONG_CONFIGURATION, load

PAGE = (Path(__file__).parents[3] / "docs" / "cody-batch.md").read_text()
NOW = datetime(2025, 3, 24, 12, tzinfo=UTC)
LOCAL, PUBLIC = "127.0.0.1", "0.0.0.0"


def run_in(state: RunState, **fields: Any) -> Run:
    empty = dict.fromkeys(Run.model_fields)
    usage = {"turns": 0, "cost_usd": 0, "unpriced_turns": 0}
    usage |= dict.fromkeys(
        ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"), 0
    )
    told = {"id": UUID(int=1), "job_id": UUID(int=2), "position": 0, "attempt": 0, "created_at": NOW, "usage": usage}
    return Run.model_validate(empty | told | {"state": state} | fields)


@pytest.mark.parametrize(
    ("patterns", "admitted", "refused"),
    [
        ("liamzdenek/*", ["liamzdenek/repo1", "LiamZdenek/x"], ["liamzdenek2/x", "other/liamzdenek"]),
        ("github.com/liamzdenek/*, https://github.com/a/b", ["liamzdenek/x", "a/b"], ["a/bc", "github.com/x"]),
        ("acme/service-*,acme/we?", ["acme/service-x", "acme/web"], ["acme/service", "acme/webs"]),
        ("*/tools", ["a/tools", "b/tools"], ["a/tool"]),
        ("*", ["a/b"], []),
        ("a*", None, []),
        ("a/b/c", None, []),
        ("../x y", None, []),
    ],
)
def test_patterns(patterns: str, admitted: list[str] | None, refused: list[str]) -> None:
    if admitted is None:
        with pytest.raises(ValueError, match="is no pattern"):
            Allowed.parse(patterns)
        return
    allowed = Allowed.parse(patterns)
    assert all(map(allowed.admits, admitted))
    assert not any(map(allowed.admits, refused))


def test_the_forge_is_asked_by_owner() -> None:
    asked = Allowed.parse("a/*, b/x, a/y, */z").by_owner()
    assert asked == {"a": ["a/*", "a/y"], "b": ["b/x"], "": ["*/z"]}


@pytest.mark.parametrize("name", ["a", "a/", "/a", "a/b/c", "a/..", "./b", "a/b\n", "a b/c", "a/" + "x" * 101, ""])
def test_what_is_no_full_name(name: str) -> None:
    assert not is_full_name(name)


@given(strategies.lists(strategies.text(strategies.characters(exclude_characters="\n"), min_size=1), min_size=1))
def test_names_come_back_as_they_were_kept(names: list[str]) -> None:
    assert names_in(kept_names(names)) == names


def test_the_longest_names_of_the_largest_job_fit_its_metadata() -> None:
    body = {
        "name": "n",
        "type": "t",
        "description": "d",
        "prompt": "p" * 5_000,
        "repositories": [f"{number:0100}/{number:0100}" for number in range(MOST_REPOSITORIES)],
    }
    wanted = JobBody.model_validate(body)
    request = job_request(wanted, [Source(name, f"https://github.com/{name}.git") for name in wanted.repositories])
    assert names_in(request.metadata) == wanted.repositories
    assert (request.options.publish, request.options.on_existing) == (Publish.NONE, OnExisting.SEPARATE)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/liamzdenek/repo1.git", "liamzdenek/repo1"),
        ("https://git.example:8443/a/b/c/", "b/c"),
        ("git@github.com:owner/repo.git", "owner/repo"),
        ("ssh://git@host/owner/repo", "owner/repo"),
        ("/srv/git/one.git", "git/one"),
        ("file:///one", "one"),
        ("x", "x"),
        ("", ""),
    ],
)
def test_a_repository_without_a_name_is_called_after_its_address(url: str, name: str) -> None:
    assert name_of(url) == name


@given(strategies.uuids())
def test_job_ids(job_id: UUID) -> None:
    assert job_id_of(job_name(job_id)) == job_id
    assert job_id_of(str(job_id)) is None
    assert job_id_of(f"{job_name(job_id)}\n") is None


def test_every_state_has_a_status_and_a_filter_that_finds_it() -> None:
    for state in JobState:
        assert [status for status in JobStatus if state in STATES[status]] == [status_of(state)]


@pytest.mark.parametrize(
    ("state", "fields", "status", "error"),
    [
        (RunState.QUEUED, {}, RepositoryStatus.PENDING, None),
        (RunState.DISPATCHED, {}, RepositoryStatus.PENDING, None),
        (RunState.QUEUED, {"started_at": NOW}, RepositoryStatus.IN_PROGRESS, None),
        (RunState.RUNNING, {"started_at": NOW}, RepositoryStatus.IN_PROGRESS, None),
        (RunState.PUBLISHING, {"started_at": NOW}, RepositoryStatus.IN_PROGRESS, None),
        (RunState.RUNNING, {"started_at": NOW, "cancel_requested_at": NOW}, RepositoryStatus.FAILED, "cancelled"),
        (RunState.CANCELLED, {"finished_at": NOW}, RepositoryStatus.FAILED, "cancelled"),
        (RunState.FAILED, {"exit_reason": ExitReason.STUCK}, RepositoryStatus.FAILED, "stuck"),
        (RunState.FAILED, {"exit_reason": ExitReason.STUCK, "error": "words"}, RepositoryStatus.FAILED, "words"),
        (RunState.COMPLETED, {"outcome": "no_changes"}, RepositoryStatus.COMPLETED, None),
    ],
)
def test_states_of_a_repository(
    state: RunState, fields: dict[str, Any], status: RepositoryStatus, error: str | None
) -> None:
    run = run_in(state, **fields)
    assert (run_status(run), run_error(run)) == (status, error)
    assert were_changes_necessary(run) is (False if state is RunState.COMPLETED else None)


def test_results_of_tools_have_the_shapes_of_the_document() -> None:
    def use(number: int, tool: str) -> dict[str, Any]:
        return {"type": "tool_use", "id": f"t{number}", "name": tool, "input": {}}

    def result(number: int, text: str, **fields: Any) -> dict[str, Any]:
        return {"type": "tool_result", "tool_use_id": f"t{number}", "content": text, **fields}

    blocks = [
        result(1, "src/a.js\nsrc/b.js\n[at least 1,234 more entries left out]"),
        result(2, "No files."),
        result(3, "1\tx"),
        result(4, "no", is_error=True),
        {"type": "image"},
    ]
    contents = [[use(1, "list_files"), use(2, "list_files"), use(3, "read_file"), use(4, "search_code")], blocks]
    messages = [
        {"number": at, "attempt": 1, "role": role, "content": content, "created_at": NOW}
        for at, (role, content) in enumerate(zip(("assistant", "user"), contents, strict=True))
    ]
    transcript = Transcript.model_validate({"run_id": UUID(int=1), "messages": messages})
    shown = thread(run_in(RunState.RUNNING), transcript).messages
    assert [message.content["result"] for message in shown if message.type == "tool_result"] == [
        {"files": ["src/a.js", "src/b.js"], "success": True},
        {"files": [], "success": True},
        {"output": "1\tx", "success": True},
        {"error": "no", "success": False},
    ]


def test_errors_have_the_documents_shape() -> None:
    problem = Problem(title="x", status=400, detail="name: is required")
    assert render(problem).model_dump(by_alias=True) == {"error": {"message": "name: is required"}}
    detailed = problem.model_copy(update={"errors": [ProblemField(field="name", message="is required")]})
    assert render(detailed).model_dump()["error"]["details"] == [{"field": "name", "message": "is required"}]


def test_who_may_use_it() -> None:
    assert cody_batch(CodySettings(), PUBLIC) is None
    for host, settings in ((LOCAL, {}), (PUBLIC, {"no_auth": True}), (PUBLIC, {"api_key": SecretStr("k")})):
        dialect = cody_batch(CodySettings(**settings), host)
        assert dialect is not None
        assert bool(dialect.security) == ("api_key" in settings)


@pytest.mark.parametrize(
    ("host", "patterns", "admits"),
    [(LOCAL, None, True), (PUBLIC, None, None), (PUBLIC, "a/*", True), (LOCAL, "b/*", False)],
)
def test_what_may_be_worked_on(host: str, patterns: str | None, admits: bool | None) -> None:
    allowed = CodySettings(allowed_repositories=patterns).allowed_on(is_local=host == LOCAL)
    assert (allowed.admits("a/x") if allowed else None) is admits


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QUARTERDECK_CODY_API_KEY", "not good"),
        ("QUARTERDECK_CODY_NO_AUTH", "perhaps"),
        ("QUARTERDECK_CODY_PORT", "70000"),
        ("CODY_MAX_REPOSITORIES", "0"),
        ("CODY_MAX_REPOSITORIES", "251"),
        ("CODY_MAX_WORKERS", "many"),
        ("CODY_MAX_QUEUE_SIZE", "-1"),
        ("ALLOWED_REPOSITORIES", "owner"),
        ("ALLOWED_REPOSITORIES", " , "),
        ("GITHUB_SERVER_URL", "https://me:secret@github.com"),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        load(CodySettings)
    assert ended.value.code == EXIT_WRONG_CONFIGURATION
    said = capsys.readouterr().err
    assert variable in said
    assert "not good" not in said
    assert "secret" not in said


def test_with_a_port_that_others_reach_it_does_not_start_without_a_word_on_who_may_use_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert from_environment(PUBLIC) is None
    monkeypatch.setenv("QUARTERDECK_CODY_PORT", "3000")
    with pytest.raises(SystemExit) as ended:
        from_environment(PUBLIC)
    assert ended.value.code == EXIT_WRONG_CONFIGURATION
    said = capsys.readouterr().err
    assert all(name in said for name in ("QUARTERDECK_CODY_PORT", "QUARTERDECK_CODY_API_KEY", "NO_AUTH"))
    monkeypatch.setenv("QUARTERDECK_CODY_NO_AUTH", "true")
    assert from_environment(PUBLIC) is not None


def test_what_is_not_used_is_named_once_without_its_value() -> None:
    given_variables = {"AWS_SECRET_ACCESS_KEY": "s3cret", "DYNAMODB_JOBS_TABLE": "t", "NODE_ENV": "", "HOME": "/"}
    with capture_logs() as told:
        tell_unused("cody-batch", *UNUSED, source=given_variables)
        tell_unused("cody-batch", *UNUSED, source={"HOME": "/"})
    assert [entry["variables"] for entry in told] == [["AWS_SECRET_ACCESS_KEY", "DYNAMODB_JOBS_TABLE"]]
    assert "s3cret" not in str(told)


def test_serving_it_by_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    api = APIS[Published.CODY_BATCH]
    assert (api.port, api.port_variable) == (3000, "QUARTERDECK_CODY_PORT")
    assert api.unused == UNUSED
    assert "this machine alone" in api.lead(LOCAL)
    for host in (PUBLIC, "", "example.org"):
        with pytest.raises(StackStartError, match="QUARTERDECK_CODY_API_KEY"):
            api.lead(host)
    monkeypatch.setenv("QUARTERDECK_CODY_API_KEY", "key")
    assert "API key" in api.lead(PUBLIC)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert "AWS_REGION" in api.unused_variables()
    assert "QUARTERDECK_CODY_API_KEY" not in api.unused_variables()


def test_every_variable_and_endpoint_is_on_the_page() -> None:
    variables = {str(field.validation_alias) for field in CodySettings.model_fields.values()}
    dialect = cody_batch(CodySettings(), LOCAL)
    assert dialect is not None
    paths = {operation.path for operation in dialect.operations if "{owner}" not in operation.path}
    shown = {path.replace("{jobId}", ":jobId").replace("{repoName}", ":repoName") for path in paths}
    assert {name for name in variables if f"`{name}`" not in PAGE} == set()
    assert {path for path in shown if f" {path}`" not in PAGE} == set()


@pytest.fixture
def description() -> dict[str, Any]:
    dialect = cody_batch(CodySettings(), LOCAL)
    assert dialect is not None
    found: dict[str, Any] = orjson.loads(document(dialect, "/cody-batch"))
    return found


def test_the_document_is_valid_and_has_its_own_errors(description: dict[str, Any]) -> None:
    validate(description)
    schemas = description["components"]["schemas"]
    assert list(schemas["Error"]["properties"]) == ["error"]
    assert list(schemas["ErrorWords"]["properties"]) == ["message", "details"]
    assert "Problem" not in schemas
    assert description["security"] == []
    assert schemas["JobBody"]["required"] == ["name", "type", "prompt", "repositories"]
    parameters = {each["name"]: each for each in description["paths"]["/jobs"]["get"]["parameters"]}
    assert list(parameters) == ["page", "perPage", "status"]
