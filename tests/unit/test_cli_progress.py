"""A job's progress folded from events, and the events as lines."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from quarterdeck.cli.lines import line
from quarterdeck.cli.progress import TEXT_CHARACTERS, JobProgress, RunProgress
from quarterdeck.sse import Event
from tests.integration.fake_gateway import make_job, make_run


def event(kind: str, run: str = "", **payload) -> Event:
    time = datetime(2026, 1, 31, 12, tzinfo=UTC)
    return Event(id="", kind=kind, job_id="j", run_id=run, number=1, attempt=1, time=time, payload=payload)


def progress_of(*repositories: str | None) -> tuple[JobProgress, list[RunProgress]]:
    job = make_job()
    progress = JobProgress(job, [make_run(job, id=uuid4(), repository=repository) for repository in repositories])
    return progress, list(progress.runs.values())


def test_a_run_goes_forward_from_queued_to_done():
    run = RunProgress("x")
    steps = [(run.fraction, run.state, run.step)]
    for each in [
        event("run.started", agent="agent-1"),
        event("turn.started", turn=1),
        event("turn.started", turn=2),
        event("run.publishing"),
        event("run.finished", state="completed", outcome="delivered", summary="Did it.\nAll of it."),
    ]:
        run.apply(each)
        steps.append((run.fraction, run.state, run.step))
    assert [step for _, _, step in steps] == ["queued", "preparing", "turn 1", "turn 2", "publishing", "delivered"]
    assert [state for _, state, _ in steps] == ["queued", "running", "running", "running", "publishing", "completed"]
    fractions = [fraction for fraction, _, _ in steps]
    assert fractions == sorted(set(fractions))
    assert fractions[-1] == 1.0
    assert run.activity == "Did it."


def test_many_turns_never_pass_publishing():
    run = RunProgress("x", turn=1000, state="running")
    assert run.fraction <= RunProgress("x", state="publishing").fraction < 1


def test_tokens_add_up_over_turns():
    run = RunProgress("x")
    run.apply(event("turn.ended", usage={"inputTokens": 5, "cacheReadInputTokens": 10, "outputTokens": 3}))
    run.apply(event("turn.ended", usage={"cacheCreationInputTokens": 1, "outputTokens": 4}))
    assert (run.input_tokens, run.output_tokens) == (16, 7)


def test_the_activity_is_the_tool_or_the_last_line_of_text():
    run = RunProgress("x")
    run.apply(event("delta", type="text", text="Looking\nat the fi"))
    run.apply(event("delta", type="text", text="les"))
    assert run.activity == "at the files"
    run.apply(event("delta", type="tool_input", text='{"path"'))
    assert run.activity == "at the files"
    run.apply(event("delta", type="thinking", text="hm", more=[{"type": "text", "text": " again"}]))
    assert run.activity == "at the files again"
    run.apply(event("tool.started", name="read_file", subject="a.py"))
    assert run.activity == "read_file a.py"
    run.apply(event("turn.reset", reason="overloaded"))
    assert run.activity == "trying again: overloaded"


def test_a_line_without_end_is_not_kept_without_bound():
    run = RunProgress("x")
    for _ in range(100):
        run.apply(event("delta", type="text", text="y" * 100))
    assert len(run.activity) == TEXT_CHARACTERS


def test_a_failed_run_says_why():
    run = RunProgress("x")
    run.apply(event("run.finished", state="failed", exitReason="clone_failed", error="no such repository"))
    assert (run.is_final, run.step, run.activity) == (True, "clone_failed", "no such repository")


def test_repositories_are_named_as_short_as_they_can_be():
    progress, runs = progress_of("https://a.example/one.git", "git@b.example:two.git", "/srv/one.git/", "/srv/3", None)
    assert [run.name for run in runs] == [
        "https://a.example/one.git",
        "two",
        "/srv/one.git/",
        "3",
        "(no repository)",
    ]
    assert progress.name_of(event("log", next(iter(progress.runs)))) == "https://a.example/one.git"


def test_the_jobs_state_follows_its_events():
    progress, _ = progress_of("/srv/x")
    states = []
    for each in [event("job.started"), event("job.cancel_requested"), event("job.finished", state="cancelled")]:
        progress.apply(each)
        states.append(progress.state)
    assert states == ["running", "cancelling", "cancelled"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (event("run.finished", state="failed", exitReason="timed_out", error="30 min"), "x: failed timed_out 30 min"),
        (event("changeset.stored", changesetId="c", insertions=2), "x: changeset c: 0 file(s), +2 -0"),
        (event("gap", missedFrom=1, missedTo=4), "x: events 1 to 4 are no longer kept"),
        (event("run.publishing"), "x: publishing"),
    ],
)
def test_a_durable_event_is_one_line(given, expected):
    assert (line(given, "x") or "").partition(" ")[2] == expected


def test_a_delta_is_no_line():
    assert line(event("delta", type="text", text="hello"), "x") is None
