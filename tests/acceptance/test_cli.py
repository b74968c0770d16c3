"""The command line on a whole stack: up, a job from the prompt to the pushed branch, down, and nothing left."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from quarterdeck.demo.git import commit_all, git, line

UP_SECONDS = 90
COMMAND_SECONDS = 90
FILES = {"a.py": "old = 1\n", "sub/b.txt": "an old word\n", "c.md": "nothing\n"}

Quarterdeck = Callable[..., subprocess.CompletedProcess[str]]


def environment(data_dir: Path) -> dict[str, str]:
    """Ours without what would choose another gateway, other servers or a real model."""
    foreign = ("QUARTERDECK_", "ANTHROPIC_", "CLAUDE_", "DATABASE_URL", "NATS_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"QUARTERDECK_DATA_DIR": str(data_dir)}


@pytest.fixture(scope="module")
def quarterdeck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quarterdeck]:
    """The command, on a stack of this module's own."""
    data_dir = tmp_path_factory.mktemp("stack")

    def run(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "quarterdeck", *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env=environment(data_dir),
            timeout=UP_SECONDS if words[0] == "up" else COMMAND_SECONDS,
            check=False,
        )

    started = run("up", "--detach", "--json")
    assert started.returncode == 0, started.stderr
    info = json.loads(started.stdout)
    try:
        assert info["offline_model"] is True
        yield run
    finally:
        stopped = run("down")
    assert stopped.returncode == 0, stopped.stderr
    assert run("status").returncode == 1
    assert [pid for pid in [info["pid"], *info["processes"].values()] if psutil.pid_exists(pid)] == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    commit_all(folder, tmp_path / "widget.git", "base")
    return tmp_path / "widget.git"


def test_a_second_stack_on_the_folder_is_refused(quarterdeck):
    refused = quarterdeck("up", "--detach")
    assert refused.returncode == 1
    assert "already runs" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_status_tells_that_all_is_well(quarterdeck):
    status = quarterdeck("status", "--json")
    assert status.returncode == 0
    document = json.loads(status.stdout)
    assert document["healthy"] is True
    assert {"gateway", "scheduler", "vcs", "agent-1"} <= {process["name"] for process in document["processes"]}


def test_a_job_is_carried_out_and_looked_at(quarterdeck, repository):
    submitted = quarterdeck("submit", "-", "-r", str(repository), "--json", stdin="replace all 'old' with 'new'")
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)

    watched = quarterdeck("watch", job["id"], "--json")
    events = [json.loads(line) for line in watched.stdout.splitlines()]
    assert watched.returncode == 0, watched.stderr
    numbers = [event["number"] for event in events if event["number"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert events[-1]["kind"] == "job.finished"

    (run,) = json.loads(quarterdeck("show", job["id"], "--json").stdout)["runs"]
    assert (run["state"], run["outcome"]) == ("completed", "delivered")
    head = line("rev-parse", run["branch"], folder=repository)
    assert head == run["changeset"]["commitSha"]
    assert git("show", f"{head}:a.py", folder=repository) == b"new = 1\n"
    assert "+an new word" in quarterdeck("diff", run["id"]).stdout
    assert "edit_file" in quarterdeck("transcript", run["id"]).stdout
    assert quarterdeck("logs", run["id"]).returncode == 0
    assert job["id"] in quarterdeck("jobs").stdout

    refused = quarterdeck("cancel", job["id"])
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: ")


def test_the_exit_code_of_submit_watch_tells_the_outcome(quarterdeck, repository, tmp_path):
    empty = tmp_path / "not-a-repository"
    empty.mkdir()
    prompt = "replace all 'old' with 'new'"
    assert quarterdeck("submit", prompt, "-r", str(repository), "--watch").returncode == 0
    assert quarterdeck("submit", prompt, "-r", str(empty), "--watch").returncode == 4
    partial = quarterdeck("submit", prompt, "-r", str(repository), "-r", str(empty), "--watch")
    assert partial.returncode == 3
    assert "clone_failed" in partial.stdout


def test_what_the_gateway_refuses_is_told_by_its_field(quarterdeck, repository):
    refused = quarterdeck("submit", "do it", "-r", str(repository), "--base", "no such ref!")
    assert refused.returncode == 1
    assert "repositories[0].baseRef" in refused.stderr


def test_a_cancelled_job_is_done_again(quarterdeck, repository: Path):
    limited = json.loads(quarterdeck("limits", "set", "--fleet", "0", "--queue", "code=3", "--json").stdout)
    assert (limited["fleet"], limited["queues"]["code"]) == (0, 3)
    first = quarterdeck("submit", "-r", str(repository), "replace all occurrences of 'old' with 'new'").stdout.strip()
    early = quarterdeck("retry", first)
    assert (early.returncode, "has not ended" in early.stderr) == (1, True)
    assert quarterdeck("cancel", first).returncode == 0
    assert quarterdeck("watch", first).returncode == 5

    second = quarterdeck("retry", first, "--only-failed").stdout.strip()
    shown = quarterdeck("limits", "set", "--fleet", "none", "--client", "default=9")
    assert (shown.returncode, "client, each" in shown.stdout) == (0, True)

    assert quarterdeck("watch", second).returncode == 0
    document = json.loads(quarterdeck("show", second, "--json").stdout)["job"]
    assert (document["retryOf"], document["state"]) == (first, "completed")
    assert quarterdeck("limits", "set", "--queue", "code=none", "--client", "default=none").returncode == 0


@pytest.mark.parametrize("words", [("--fleet", "some"), ("--queue", "publish=1"), ("--client", "5")])
def test_a_limit_that_cannot_be_is_refused_before_it_is_sent(quarterdeck, words: tuple[str, str]):
    refused = quarterdeck("limits", "set", *words)
    assert refused.returncode == 2
    assert words[1].partition("=")[0] in refused.stderr


def test_a_task_is_spoken_to_and_ended(quarterdeck):
    assert quarterdeck("limits", "set", "--fleet", "0").returncode == 0
    job = quarterdeck("submit", "--kind", "task", "say hello").stdout.strip()
    said = quarterdeck("say", job, "and louder")
    assert (said.returncode, "message 1" in said.stdout) == (0, True)
    assert quarterdeck("complete", job).returncode == 0
    assert quarterdeck("cancel", job).returncode == 0
    assert quarterdeck("limits", "set", "--fleet", "none").returncode == 0
