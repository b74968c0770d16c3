"""The command line against a gateway over real sockets: what it prints, and how it exits."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from quarterdeck.cli.app import app
from services.contracts.rest import Job, RunCounts
from services.contracts.words import JobOutcome, JobState
from tests.integration.fake_gateway import (
    API_KEY,
    DIFF,
    FakeGateway,
    Stream,
    make_event,
    make_job,
    make_run,
    problem,
    running,
)

DEADLINE_SECONDS = 20
COMPLETED = RunCounts(total=2, started=2, active=0, completed=2, failed=0, cancelled=0)
PARTIAL = RunCounts(total=2, started=2, active=0, completed=1, failed=1, cancelled=0)


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path / "no-stack"))
    with running(FakeGateway()) as served:
        monkeypatch.setenv("QUARTERDECK_ADDRESS", served.address)
        monkeypatch.setenv("QUARTERDECK_API_KEY", API_KEY)
        yield served


def quarterdeck(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin)


def finished_job(gateway: FakeGateway, **changes) -> Job:
    job = make_job(**changes)
    run = make_run(job)
    gateway.add(job, run)
    gateway.events = [
        make_event(1, "job.submitted", runs=1),
        make_event(2, "run.started", run=run.id, agent="agent-1"),
        make_event(0, "delta", run=run.id, type="text", text="working"),
        make_event(3, "tool.started", run=run.id, name="read_file", subject="a.py"),
        make_event(4, "run.finished", run=run.id, state="completed", outcome="delivered"),
        make_event(5, "job.finished", state="completed"),
    ]
    return job


@pytest.mark.parametrize(
    ("state", "runs", "code"),
    [
        (JobState.COMPLETED, COMPLETED, 0),
        (JobState.COMPLETED, PARTIAL, 3),
        (JobState.FAILED, PARTIAL, 4),
        (JobState.CANCELLED, PARTIAL, 5),
    ],
)
def test_watching_exits_with_the_outcome(gateway, state, runs, code):
    job = finished_job(gateway, state=state, runs=runs, outcome=JobOutcome.PARTIAL)
    assert quarterdeck("watch", str(job.id)).exit_code == code
    assert quarterdeck("submit", "do it", "-r", "https://forge.example/x.git", "--watch").exit_code == code


def test_watching_without_a_terminal_prints_plain_lines(gateway):
    job = finished_job(gateway)
    gateway.streams = [Stream(events=3, cut=True)]
    result = quarterdeck("watch", str(job.id))
    lines = [line.partition(" ")[2] for line in result.stdout.splitlines()]
    assert lines[:5] == [
        "job: submitted with 1 run(s)",
        "widget: started on agent-1",
        "widget: read_file a.py",
        "widget: completed delivered",
        "job: completed",
    ]


def test_watching_as_json_prints_a_line_an_event(gateway):
    job = finished_job(gateway)
    result = quarterdeck("watch", str(job.id), "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["kind"] for event in events] == [event["kind"] for event in gateway.events]
    assert events[2]["payload"] == {"type": "text", "text": "working"}


def test_ctrl_c_leaves_the_job_running_and_says_how_to_cancel_it(gateway):
    job = finished_job(gateway)
    gateway.events = gateway.events[:2]
    process = subprocess.Popen(
        [sys.executable, "-m", "quarterdeck", "watch", str(job.id)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    gateway.jobs = [job.model_copy(update={"state": JobState.RUNNING})]
    assert process.stdout is not None
    assert "submitted" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    assert f"Job {job.id} goes on. Cancel it with: quarterdeck cancel {job.id}" in errors
    assert "Traceback" not in errors


def test_submit_sends_what_was_asked(gateway, tmp_path, monkeypatch):
    (tmp_path / "repo").mkdir()
    monkeypatch.chdir(tmp_path)
    job = gateway.add(make_job())
    options = ["--base", "main", "--name", "n", "--no-publish", "--max-parallel", "2", "--priority", "7"]
    result = quarterdeck("submit", "-", "-r", "repo", "-r", "https://forge.example/x.git", *options, stdin="do it")
    assert result.stdout == f"{job.id}\n"
    assert gateway.bodies == [
        {
            "prompt": "do it",
            "kind": "code",
            "name": "n",
            "priority": 7,
            "repositories": [
                {"url": str(tmp_path / "repo"), "baseRef": "main"},
                {"url": "https://forge.example/x.git", "baseRef": "main"},
            ],
            "options": {"publish": "none", "maxParallel": 2},
        }
    ]


@pytest.mark.parametrize("option", [("--no-publish",), ("--publish", "none")])
def test_submit_needs_no_repository_where_nothing_is_published(gateway, option):
    job = gateway.add(make_job())
    assert quarterdeck("submit", "do it", *option).stdout == f"{job.id}\n"
    (body,) = gateway.bodies
    assert (body["kind"], body["repositories"], body["options"]) == ("code", [], {"publish": "none"})


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "do it"),
        ("submit", "do it", "--publish", "branch"),
        ("submit", "do it", "-r", "no/such/folder"),
        ("submit", "", "-r", "https://forge.example/x.git"),
        ("show", "not-an-id"),
        ("jobs", "--state", "asleep"),
        ("jobs", "--limit", "0"),
        ("frobnicate",),
    ],
)
def test_a_wrong_command_line_exits_2_and_asks_nothing(gateway, words):
    result = quarterdeck(*words)
    assert result.exit_code == 2
    assert not gateway.requests
    assert "Traceback" not in result.stderr


def test_jobs_are_listed_as_a_table_and_as_json(gateway):
    jobs = [gateway.add(make_job(name=f"job {number}")) for number in range(3)]
    table = quarterdeck("jobs")
    assert all(str(job.id) in table.stdout for job in jobs)
    listed = json.loads(quarterdeck("jobs", "--limit", "2", "--json").stdout)
    assert [job["name"] for job in listed] == ["job 2", "job 1"]
    assert json.loads(quarterdeck("jobs", "--state", "failed", "--json").stdout) == []


def test_show_tells_the_job_and_its_runs(gateway):
    job = make_job()
    run = make_run(job, state="failed", outcome=None, exit_reason="clone_failed", error="remote: not found")
    gateway.add(job, run)
    shown = quarterdeck("show", str(job.id)).stdout
    assert str(run.id) in shown
    assert "failed (clone_failed)" in shown
    assert "remote: not found" in shown
    document = json.loads(quarterdeck("show", str(job.id), "--json").stdout)
    assert document["job"]["id"] == str(job.id)
    assert document["runs"][0]["exitReason"] == "clone_failed"


def test_text_of_others_cannot_steer_the_terminal(gateway):
    job = make_job(name="\x1b]0;owned\x07 [bold]name[/bold]")
    run = make_run(job, error="\x1b[2Jgone\x9b31m", state="failed")
    gateway.add(job, run)
    gateway.events = [make_event(1, "log", run=run.id, message="\x1b[31mred"), make_event(2, "job.finished")]
    for words in (["show", str(job.id)], ["jobs"], ["watch", str(job.id)], ["show", str(job.id), "--json"]):
        output = quarterdeck(*words).stdout
        assert "\x1b" not in output
        assert "\x9b" not in output
    assert "\\x1b]0;owned\\x07 [bold]name[/bold]" in quarterdeck("jobs").stdout


def test_an_id_may_be_shortened_to_a_start_that_is_unique(gateway):
    one = gateway.add(make_job(id=UUID("11111111-aaaa-4aaa-8aaa-000000000001")))
    gateway.add(make_job(id=UUID("11111111-bbbb-4aaa-8aaa-000000000002")))
    assert str(one.id) in quarterdeck("show", "11111111-A").stdout
    ambiguous = quarterdeck("show", "1111")
    assert (ambiguous.exit_code, "2 recent jobs begin with '1111'" in ambiguous.stderr) == (1, True)
    unknown = quarterdeck("show", "2222")
    assert (unknown.exit_code, "No recent job begins with '2222'" in unknown.stderr) == (1, True)


def test_the_diff_of_a_run_or_of_a_job_is_the_gateways_own_bytes(gateway):
    job = make_job()
    runs = [make_run(job), make_run(job)]
    gateway.add(job, *runs)
    assert quarterdeck("diff", str(runs[0].id)).stdout == DIFF
    assert quarterdeck("diff", str(runs[0].id)[:18]).stdout == DIFF
    assert quarterdeck("diff", str(job.id)).stdout == DIFF * 2
    document = json.loads(quarterdeck("diff", str(runs[1].id), "--json").stdout)
    assert document == [{"runId": str(runs[1].id), "diff": DIFF}]


def test_no_diff_is_an_error(gateway):
    job = gateway.add(make_job())
    result = quarterdeck("diff", str(job.id))
    assert (result.exit_code, "has no diff" in result.stderr) == (1, True)


def test_cancel_says_what_it_did_or_why_not(gateway):
    active = gateway.add(make_job(state=JobState.RUNNING, finished_at=None))
    assert "cancelling" in quarterdeck("cancel", str(active.id)).stdout
    final = gateway.add(make_job())
    refused = quarterdeck("cancel", str(final.id))
    assert refused.exit_code == 1
    assert refused.stderr == "Error: Conflict: the job is completed already (HTTP 409)\n"


def test_an_error_of_the_gateway_is_told_with_its_fields(gateway):
    fields = [{"field": "prompt", "message": "is too long"}]
    gateway.faults = [problem(400, "Invalid request", "1 field is wrong", errors=fields)]
    result = quarterdeck("submit", "do it", "-r", "https://forge.example/x.git")
    assert result.exit_code == 1
    assert result.stderr == "Error: Invalid request: 1 field is wrong\n  prompt: is too long\n"


@pytest.mark.parametrize("words", [("jobs",), ("submit", "do it", "-r", "https://x.example/y"), ("watch", "abc")])
def test_without_a_stack_every_command_says_how_to_start_one(tmp_path, monkeypatch, words):
    monkeypatch.delenv("QUARTERDECK_ADDRESS", raising=False)
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path))
    result = quarterdeck(*words)
    assert result.exit_code == 1
    assert "`quarterdeck up`" in result.stderr
    assert "Traceback" not in result.stderr


def test_down_and_status_without_a_stack(tmp_path):
    assert quarterdeck("status", "--data-dir", str(tmp_path)).exit_code == 1
    document = json.loads(quarterdeck("status", "--data-dir", str(tmp_path), "--json").stdout)
    assert (document["running"], document["healthy"]) == (False, False)
    result = quarterdeck("down", "--data-dir", str(tmp_path))
    assert (result.exit_code, "no stack runs on" in result.stderr) == (1, True)


def test_help_names_every_command_and_loads_no_database_driver():
    script = "import sys; from quarterdeck.cli.app import app; print('asyncpg' in sys.modules, 'grpc' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout == "False False\n"
    shown = quarterdeck("--help").stdout
    commands = ["up", "status", "down", "submit", "jobs", "show", "watch", "cancel", "diff", "transcript", "logs"]
    assert all(f"  {command} " in shown for command in commands)
