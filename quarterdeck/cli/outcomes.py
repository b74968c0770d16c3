"""What a job came to: the exit code that tells it, and how it is shown."""

from __future__ import annotations

from enum import IntEnum

from rich.console import Group, RenderableType
from rich.text import Text

from quarterdeck.cli.console import fields, local_time, text
from services.contracts.rest import Job, Run
from services.contracts.words import JobState

STYLES = {
    "queued": "dim",
    "running": "cyan",
    "publishing": "cyan",
    "cancelling": "yellow",
    "waiting": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
}


class ExitCode(IntEnum):
    """How `submit --watch` and `watch` end; 1 is any error, 2 a wrong command line."""

    COMPLETED = 0
    PARTIAL = 3
    FAILED = 4
    CANCELLED = 5
    INTERRUPTED = 130


def exit_code(job: Job) -> ExitCode:
    """The code for a job that is final."""
    if job.state is JobState.COMPLETED:
        return ExitCode.COMPLETED if job.runs.completed == job.runs.total else ExitCode.PARTIAL
    return ExitCode.CANCELLED if job.state is JobState.CANCELLED else ExitCode.FAILED


def state_text(state: str, outcome: str | None = None) -> Text:
    """A state in its colour, with what came of it."""
    return text(f"{state} ({outcome})" if outcome else state, STYLES.get(state, ""))


def job_view(job: Job, runs: list[Run]) -> RenderableType:
    """All there is to say about a job, its runs below."""
    about = fields(
        {
            "job": job.id,
            "name": job.name,
            "kind": job.kind,
            "state": state_text(job.state, job.outcome),
            "prompt": job.prompt,
            "created": local_time(job.created_at),
            "started": local_time(job.started_at),
            "finished": local_time(job.finished_at),
            "cancel asked": local_time(job.cancel_requested_at),
            "not before": local_time(job.not_before),
        }
    )
    return Group(about, *(_run_view(run) for run in runs))


def _run_view(run: Run) -> RenderableType:
    changeset = run.changeset
    about = {
        "  repository": run.repository,
        "  state": state_text(run.state, run.outcome or run.exit_reason),
        "  attempt": run.attempt or None,
        "  branch": run.branch,
        "  commit": changeset.commit_sha if changeset else None,
        "  change": changes(run),
        "  changeset": changeset.url if changeset else None,
        "  tokens": f"{run.usage.input_tokens} in, {run.usage.output_tokens} out" if run.usage.turns else None,
        "  summary": run.summary,
        "  error": text(run.error, "red") if run.error else None,
    }
    return Group(Text(), text(f"run {run.id}", "bold"), fields(about))


def changes(run: Run) -> str | None:
    """How much a run changed, in words; None without a changeset."""
    if run.changeset is None:
        return None
    count = len(run.changeset.files)
    return f"{count} file{'' if count == 1 else 's'}, +{run.changeset.insertions} -{run.changeset.deletions}"


def outcome_view(runs: list[Run]) -> RenderableType:
    """What came of each run and where it is; full lines, so that they can be copied."""
    return Group(*(_outcome(run) for run in runs))


def _outcome(run: Run) -> RenderableType:
    changeset = run.changeset
    heading = Text.assemble(state_text(run.state, run.outcome or run.exit_reason), "  ", text(run.repository, "bold"))
    about = {
        "  change": changes(run),
        "  branch": run.branch if changeset else None,
        "  commit": changeset.commit_sha if changeset else None,
        "  changeset": changeset.url if changeset else None,
        "  error": text(run.error, "red") if run.error else None,
    }
    return Group(heading, fields(about))
