"""The live view as it would stand on a terminal."""

import io

import pytest
from rich.console import Console

from quarterdeck.cli.progress import JobProgress
from quarterdeck.cli.views import LiveView
from quarterdeck.sse import Event
from tests.integration.fake_gateway import make_job, make_run

HEIGHT = 20


def drawn(progress: JobProgress, *, width: int = 120) -> str:
    """The last of the frames that a terminal gets."""
    out = Console(file=io.StringIO(), width=width, height=HEIGHT, force_terminal=True, color_system=None)
    with LiveView(progress, out):
        pass
    assert isinstance(out.file, io.StringIO)
    heading = f"/{len(progress.runs)} done"
    before, _, after = out.file.getvalue().rpartition(heading)
    return before[-10:] + heading + after


def tell(progress: JobProgress, number: int, kind: str, **payload) -> None:
    run = list(progress.runs)[number]
    progress.apply(Event(id="", kind=kind, job_id="j", run_id=run, number=1, attempt=1, time=None, payload=payload))


def progress_of(count: int) -> JobProgress:
    job = make_job(prompt="replace it\neverywhere")
    return JobProgress(job, [make_run(job, repository=f"https://forge.example/repo-{n}.git") for n in range(count)])


def test_each_repository_has_a_line_with_its_state_and_activity():
    progress = progress_of(2)
    tell(progress, 0, "turn.started", turn=3)
    tell(progress, 0, "turn.ended", usage={"inputTokens": 12_345, "outputTokens": 67})
    tell(progress, 0, "tool.started", name="edit_file", subject="src/a.py")
    frame = drawn(progress)
    first = next(line for line in frame.splitlines() if "repo-0" in line)
    assert "turn 3" in first
    assert "edit_file src/a.py" in first
    assert "12.3k in 67 out" in first
    assert "queued" in next(line for line in frame.splitlines() if "repo-1" in line)
    assert "0/2 done" in frame
    assert "everywhere" not in frame


def test_of_many_repositories_those_that_move_or_failed_are_shown():
    progress = progress_of(200)
    for number in range(150):
        tell(progress, number, "run.finished", state="completed", outcome="delivered")
    tell(progress, 150, "run.finished", state="failed", exitReason="clone_failed", error="not found")
    tell(progress, 199, "turn.started", turn=1)
    frame = drawn(progress)
    assert "clone_failed: not found" in frame
    assert "repo-199" in frame
    assert "more" in frame
    assert frame.count("repo-") < HEIGHT
    assert "151/200 done" in frame


@pytest.mark.parametrize("width", [40, 80])
def test_control_characters_and_markup_are_shown_not_obeyed(width):
    progress = progress_of(1)
    tell(progress, 0, "tool.started", name="\x1b[2J", subject="[red]x")
    frame = drawn(progress, width=width)
    assert "\x1b[2J" not in frame
    if width > 60:
        assert "\\x1b[2J [red]x" in frame
