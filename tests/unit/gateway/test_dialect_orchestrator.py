"""The Orchestrator's words: branches, jobs, messages, settings, its errors and its document."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, strategies
from openapi_spec_validator import validate
from pydantic import TypeAdapter, ValidationError

from quarterdeck.cli.published import APIS
from quarterdeck.cli.published import Dialect as Served
from services.contracts.model import BranchName
from services.contracts.repositories import NodeSync, SyncState
from services.contracts.rest import Problem, TranscriptMessage
from services.contracts.words import EventKind, JobState
from services.gateway.dialects.openapi import document
from services.gateway.dialects.orchestrator import from_environment, orchestrator, render
from services.gateway.dialects.orchestrator.fetching import error_of
from services.gateway.dialects.orchestrator.messages import messages
from services.gateway.dialects.orchestrator.models import CreateJob, JobStatus
from services.gateway.dialects.orchestrator.settings import OrchestratorSettings
from services.gateway.dialects.orchestrator.translation import (
    STATES,
    Place,
    job_request,
    retry_branch,
    status_of,
    task_branch,
)
from services.gateway.vcs_answers import node_sync
from services.jobs.customers import Customer, KeptRepository
from services.jobs.eventlog import LoggedEvent
from services.runtime.settings import EXIT_WRONG_CONFIGURATION, load

PAGE = (Path(__file__).parents[3] / "docs" / "orchestrator.md").read_text()
START = datetime(2026, 1, 7, 12, tzinfo=UTC)
JOB, RUN = UUID(int=1), UUID(int=2)
REPOSITORY = KeptRepository(UUID(int=3), UUID(int=4), "acme", "web", "https://forge.example/acme/web", "main")
FOLDER = str(OrchestratorSettings.model_fields["repos_dir"].validation_alias)
PLACE = Place(Customer(UUID(int=4), "Acme", START, (REPOSITORY,)), REPOSITORY)


def happened(seconds: float, kind: EventKind, *, run_id: UUID | None = RUN, **data: Any) -> LoggedEvent:
    when = START + timedelta(seconds=seconds)
    return LoggedEvent(UUID(int=9), JOB, run_id, int(seconds * 10), 1, kind, data, when)


def said(seconds: float, role: str, *content: dict[str, Any]) -> TranscriptMessage:
    fields = {"number": 1, "attempt": 1, "role": role, "content": list(content)}
    return TranscriptMessage.model_validate(fields | {"createdAt": START + timedelta(seconds=seconds)})


def told(events: list[LoggedEvent], transcript: list[TranscriptMessage] | None = None) -> list[tuple[str, Any]]:
    """Types and contents; a line of stdout as what its JSON says."""
    found = messages(RUN, events, transcript or [], root="http://here")
    assert [each.created_at for each in found] == sorted(each.created_at for each in found)
    return [(each.type, orjson.loads(each.content) if each.type == "stdout" else each.content) for each in found]


TEXT = {"type": "text", "text": "Looking."}
CALL = {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "b"}
USED = {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 2}


def test_a_code_job_line_by_line() -> None:
    events = [
        happened(0, EventKind.JOB_SUBMITTED, run_id=None),
        happened(1, EventKind.RUN_STARTED),
        happened(2, EventKind.USAGE, model="claude-x", tokens=USED, runCostUsd=0.25),
        happened(3, EventKind.LOG, level="warning", message="careful"),
        happened(3, EventKind.LOG, level="debug", message="never shown"),
        happened(4, EventKind.USAGE, model="claude-x", tokens=USED, runCostUsd=0.5),
        happened(5, EventKind.RUN_PUBLISHING),
        happened(6, EventKind.CHANGESET_PUSHED, url="/changesets/7"),
        happened(6, EventKind.RUN_FINISHED, state="completed", outcome="delivered", summary="All done"),
    ]
    transcript = [
        said(1, "user", {"type": "text", "text": "the prompt, which Claude Code does not print"}),
        said(2, "assistant", TEXT, CALL),
        said(3, "user", RESULT, {"type": "text", "text": "a nudge"}),
        said(4, "assistant", TEXT),
    ]
    session = {"session_id": str(RUN)}
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 0}
    reply = {"type": "message", "role": "assistant", "model": "claude-x"}
    tool_result = {"role": "user", "content": [RESULT]}
    assert told(events, transcript) == [
        ("system", "Job queued"),
        ("system", "Job started"),
        ("stdout", {"type": "system", "subtype": "init", "model": "claude-x", **session}),
        (
            "stdout",
            {
                "type": "assistant",
                "message": {**reply, "content": [TEXT, CALL], "usage": usage},
                "parent_tool_use_id": None,
                **session,
            },
        ),
        ("stdout", {"type": "user", "message": tool_result, "parent_tool_use_id": None, **session}),
        ("stderr", "careful"),
        (
            "stdout",
            {
                "type": "assistant",
                "message": {**reply, "content": [TEXT], "usage": usage},
                "parent_tool_use_id": None,
                **session,
            },
        ),
        ("system", "Pushing the change"),
        ("system", "Pull request: http://here/changesets/7"),
        (
            "stdout",
            {
                "type": "result",
                "subtype": "success",
                "is_error": False,
                "duration_ms": 5_000,
                "num_turns": 2,
                "result": "All done",
                "total_cost_usd": 0.5,
                "usage": {name: 2 * tokens for name, tokens in usage.items()},
                **session,
            },
        ),
        ("system", "Job completed"),
    ]


def test_a_conversation_has_a_result_for_each_answer() -> None:
    events = [
        happened(1, EventKind.RUN_STARTED),
        happened(3, EventKind.RUN_WAITING, summary="Which?"),
        happened(4, EventKind.RUN_MESSAGE, number=1, text="This one"),
        happened(4, EventKind.RUN_REQUEUED, reason="message"),
        happened(5, EventKind.RUN_STARTED),
        happened(7, EventKind.RUN_WAITING, summary="Good"),
        happened(8, EventKind.RUN_FINISHED, state="completed", outcome="answered", summary="Good"),
    ]
    found = told(events, [said(2, "assistant", TEXT), said(6, "assistant", TEXT)])
    shown = [content["type"] if kind == "stdout" else content for kind, content in found]
    assert shown == [
        *("Job started", "system", "assistant", "result", "Claude waits for a message", "This one"),
        *("Job continued", "assistant", "result", "Claude waits for a message", "Job completed"),
    ]
    assert [content["result"] for kind, content in found if kind == "stdout" and "result" in content] == [
        "Which?",
        "Good",
    ]


@pytest.mark.parametrize(("reason", "subtype"), [("max_turns", "error_max_turns"), ("stuck", "error_during_execution")])
def test_a_failed_job(reason: str, subtype: str) -> None:
    failed = happened(3, EventKind.RUN_FINISHED, state="failed", exitReason=reason, error="it was too much")
    found = told([happened(1, EventKind.RUN_STARTED), failed], [said(2, "assistant", TEXT)])
    result = found[-3][1]
    assert (result["subtype"], result["is_error"], result["result"]) == (subtype, True, "it was too much")
    assert found[-2:] == [("stderr", "it was too much"), ("system", "Job failed: it was too much")]


def test_a_cancelled_job_and_an_attempt_that_was_lost() -> None:
    events = [
        happened(1, EventKind.RUN_STARTED),
        happened(2, EventKind.RUN_REQUEUED, reason="lost"),
        happened(3, EventKind.RUN_STARTED),
        happened(4, EventKind.JOB_CANCEL_REQUESTED, run_id=None),
        happened(5, EventKind.RUN_FINISHED, state="cancelled"),
    ]
    sentences = ["Job started", "Job is to be continued: lost", "Job continued", "Job cancelled"]
    assert told(events) == [("system", sentence) for sentence in sentences]


def test_a_push_that_failed_and_another_runs_events() -> None:
    events = [
        happened(1, EventKind.CHANGESET_FAILED, error="rejected"),
        happened(2, EventKind.LOG, level="error", message="of another run", run_id=UUID(int=77)),
        happened(3, EventKind.LOG, level="info", message="of this one"),
    ]
    assert told(events) == [("stderr", "rejected"), ("system", "of this one")]


def test_branches() -> None:
    assert task_branch(1_736_000_000_000) == "task-1736000000000"
    assert retry_branch("feature-x", 1_736_000_000_000) == "feature-x-retry-1736000000000"
    assert retry_branch("a-retry-1", 2) == "a-retry-1-retry-2"


@pytest.mark.parametrize("length", [1, 170, 179, 180, 181, 200])
def test_every_retry_is_on_a_branch_that_git_takes(length: int) -> None:
    for branch in ("x" * length, ("x" * 9 + "/") * 20):
        TypeAdapter(BranchName).validate_python(retry_branch(branch[:length].rstrip("/") or "x", 1_736_000_000_000))


def test_every_state_has_a_status_and_a_filter_that_finds_it() -> None:
    for state in JobState:
        assert [status for status in JobStatus if state in STATES[status]] == [status_of(state)]


@given(prompt=strategies.text(max_size=300), title=strategies.text(max_size=250), feature=strategies.text(max_size=250))
def test_everything_that_is_taken_makes_a_job(prompt: str, title: str, feature: str) -> None:
    fields = {"prompt": prompt, "title": title, "featureTitle": feature, "featureId": str(JOB), "jobType": "code"}
    try:
        wanted = CreateJob.model_validate_json(orjson.dumps(fields))
    except (ValidationError, orjson.JSONEncodeError):
        return
    request = job_request(wanted, PLACE, "x")
    assert (request.prompt, request.repositories[0].branch) == (prompt, "x")


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node_sync("a", SyncState.DONE)], None),
        ([node_sync("a", SyncState.DONE), node_sync("b", SyncState.ABSENT)], None),
        ([node_sync("a", SyncState.ABSENT)], "not cloned"),
        ([node_sync("a", SyncState.DONE), node_sync("b", SyncState.RUNNING)], "goes on"),
        ([node_sync("a", SyncState.RUNNING), node_sync("b", SyncState.FAILED, error="refused")], "refused"),
    ],
)
def test_what_nodes_say_as_one(nodes: list[NodeSync], words: str | None) -> None:
    error = error_of(nodes)
    assert (error is None) == (words is None)
    assert words is None or words in str(error)


def test_errors_have_one_field() -> None:
    problem = Problem(title="x", status=404, detail="no job 5")
    assert render(problem).model_dump() == {"error": "no job 5"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AGENT_API_SECRET", "not good"),
        ("AGENT_API_SECRET", "ü"),
        ("MAX_CONCURRENT_JOBS", "0"),
        ("MAX_CONCURRENT_JOBS", "many"),
        ("GITHUB_SERVER_URL", "github.com"),
        ("GITHUB_SERVER_URL", "https://me:token@github.com"),
        ("QUARTERDECK_ORCHESTRATOR_PORT", "70000"),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        load(OrchestratorSettings)
    assert ended.value.code == EXIT_WRONG_CONFIGURATION
    heard = capsys.readouterr().err
    assert variable in heard
    assert "token" not in heard
    assert "not good" not in heard


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"AGENT_API_SECRET": "s3cret", "REPOS_DIR": "/srv/repos", "WORKTREES_DIR": "/srv/worktrees"}
    told |= {"MAX_CONCURRENT_JOBS": "4", "SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "k3y"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = load(OrchestratorSettings)
    assert (settings.limits.slots.most, settings.limits.slots.is_told) == (4, True)
    assert "s3cret" not in repr(settings)
    assert from_environment("127.0.0.1") is not None
    logged = capsys.readouterr().out
    assert logged.count("SUPABASE_SERVICE_ROLE_KEY") == 1
    assert re.search("WORKTREES_DIR.*/srv/repos/worktrees", logged)
    assert "k3y" not in logged
    assert "s3cret" not in logged


def test_the_folder_of_the_vcs_is_told_or_the_stacks_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folders = APIS[Served.ORCHESTRATOR].folders
    assert folders is not None
    assert folders(tmp_path / "vcs") == {"QUARTERDECK_VCS_ROOT": str(tmp_path / "vcs")}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REPOS_DIR", "~/repos")
    told = folders(tmp_path / "vcs")
    assert told["QUARTERDECK_VCS_ROOT"] == str(tmp_path / "repos")
    assert (tmp_path / "repos").stat().st_mode & 0o777 == 0o700
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert load(OrchestratorSettings).repos_dir == tmp_path / "repos"


def test_without_a_secret_it_is_not_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert from_environment("127.0.0.1") is None
    assert "AGENT_API_SECRET" in capsys.readouterr().out


def test_every_variable_is_on_the_page() -> None:
    variables = {str(field.validation_alias) for field in OrchestratorSettings.model_fields.values()} - {FOLDER}
    variables |= {
        "QUARTERDECK_VCS_ROOT",
        "REPOS_DIR",
        "PORT",
        "SUPABASE_URL",
        "SUPABASE_SERVICE_ROLE_KEY",
        "GITHUB_TOKEN",
    }
    assert {name for name in variables if f"`{name}`" not in PAGE} == set()


def test_the_document_is_valid_and_on_the_page() -> None:
    dialect = orchestrator(OrchestratorSettings(secret="s"))
    assert dialect is not None
    described = orjson.loads(document(dialect, "/orchestrator"))
    validate(described)
    assert set(described["components"]["schemas"]["Error"]["properties"]) == {"error"}
    assert "Problem" not in described["components"]["schemas"]
    for operation in dialect.operations:
        path = re.sub(r"\{(\w+)\}", r":\1", operation.path)
        assert f"`{operation.method} {path}" in PAGE, path
