"""How far a job is, folded from its events. Pure: no terminal, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from quarterdeck.sse import Event
from services.contracts.rest import Job, Run
from services.contracts.words import JobState, RunState

TEXT_CHARACTERS = 500
"""How much of streaming text is kept to show its last line."""

_PREPARING, _FIRST_TURN, _PUBLISHING = 0.05, 0.1, 0.92
_FINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})


@dataclass
class RunProgress:
    """One run. ``step`` is what it does now, in words; ``activity`` the latest it did."""

    name: str
    state: str = RunState.QUEUED
    step: str = "queued"
    turn: int = 0
    activity: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    _text: str = field(default="", repr=False)

    @property
    def is_final(self) -> bool:
        return self.state in _FINAL

    @property
    def fraction(self) -> float:
        """0 to 1. How many turns there will be nobody knows: each covers a fifth of the way that is left."""
        if self.is_final:
            return 1.0
        if self.state == RunState.PUBLISHING:
            return _PUBLISHING
        if self.turn:
            return _PUBLISHING - (_PUBLISHING - _FIRST_TURN) * 0.8**self.turn
        return _PREPARING if self.state == RunState.RUNNING else 0.0

    def apply(self, event: Event) -> None:
        """Take one event of this run; kinds that change nothing here are passed over."""
        if handle := _HANDLERS.get(event.kind):
            handle(self, event)

    def _started(self, event: Event) -> None:
        self.state, self.step = RunState.RUNNING, "preparing"
        self.activity = f"on {event.payload.get('agent', 'an agent')}"

    def _requeued(self, event: Event) -> None:
        self.state, self.step = RunState.QUEUED, "queued again"
        self.activity = event.payload.get("error") or event.payload.get("reason", "")

    def _turn_started(self, event: Event) -> None:
        self.state, self.turn, self._text = RunState.RUNNING, event.payload.get("turn", 0), ""
        self.step = f"turn {self.turn}"

    def _turn_ended(self, event: Event) -> None:
        usage = event.payload.get("usage", {})
        fresh, read = usage.get("inputTokens", 0), usage.get("cacheReadInputTokens", 0)
        self.input_tokens += fresh + read + usage.get("cacheCreationInputTokens", 0)
        self.output_tokens += usage.get("outputTokens", 0)

    def _turn_reset(self, event: Event) -> None:
        self._text, self.activity = "", f"trying again: {event.payload.get('reason', '')}"

    def _tool_started(self, event: Event) -> None:
        self.activity = f"{event.payload.get('name', 'a tool')} {event.payload.get('subject', '')}".rstrip()

    def _delta(self, event: Event) -> None:
        pieces = (event.payload, *event.payload.get("more", ()))
        text = "".join(piece.get("text", "") for piece in pieces if piece.get("type") == "text")
        if text:
            self._text = (self._text + text)[-TEXT_CHARACTERS:]
            lines = self._text.split("\n")
            self.activity = next((line.strip() for line in reversed(lines) if line.strip()), self.activity)

    def _publishing(self, _event: Event) -> None:
        self.state, self.step = RunState.PUBLISHING, "publishing"
        self.activity = "pushing the branch"

    def _progress(self, event: Event) -> None:
        self.activity = f"{event.payload.get('phase', 'Git')} {event.payload.get('percent', 0)} %"

    def _finished(self, event: Event) -> None:
        payload = event.payload
        self.state = payload.get("state", RunState.COMPLETED)
        self.step = payload.get("outcome") or payload.get("exitReason") or self.state
        self.activity = payload.get("error") or payload.get("summary", "").partition("\n")[0]


_HANDLERS: Mapping[str, Callable[[RunProgress, Event], None]] = {
    "run.started": RunProgress._started,  # noqa: SLF001 (the table belongs to the class)
    "run.requeued": RunProgress._requeued,  # noqa: SLF001
    "turn.started": RunProgress._turn_started,  # noqa: SLF001
    "turn.ended": RunProgress._turn_ended,  # noqa: SLF001
    "turn.reset": RunProgress._turn_reset,  # noqa: SLF001
    "tool.started": RunProgress._tool_started,  # noqa: SLF001
    "delta": RunProgress._delta,  # noqa: SLF001
    "progress": RunProgress._progress,  # noqa: SLF001
    "run.publishing": RunProgress._publishing,  # noqa: SLF001
    "run.finished": RunProgress._finished,  # noqa: SLF001
}


class JobProgress:
    """A job and its runs, in the order of its repositories."""

    def __init__(self, job: Job, runs: Iterable[Run]) -> None:
        self.job_id = str(job.id)
        self.title = (job.name or job.prompt).strip().partition("\n")[0]
        self.state = str(JobState.QUEUED)
        self.runs = _named(runs)

    def apply(self, event: Event) -> None:
        """Take one event of the job, from its first on."""
        if run := self.runs.get(event.run_id):
            run.apply(event)
        elif event.kind == "job.started":
            self.state = JobState.RUNNING
        elif event.kind == "job.cancel_requested":
            self.state = JobState.CANCELLING
        elif event.kind == "job.finished":
            self.state = event.payload.get("state", self.state)

    def name_of(self, event: Event) -> str:
        """The repository that an event is about; empty for the job as a whole."""
        run = self.runs.get(event.run_id)
        return run.name if run else ""


def _named(runs: Iterable[Run]) -> dict[str, RunProgress]:
    """By id, each with the shortest name that no other repository of the job has."""
    found = list(runs)
    short = {run.id: _short(run.repository) for run in found}
    doubled = [name for name in short.values() if list(short.values()).count(name) > 1]
    return {
        str(run.id): RunProgress((run.repository or "") if short[run.id] in doubled else short[run.id]) for run in found
    }


def _short(repository: str | None) -> str:
    if not repository:
        return "(no repository)"
    return PurePosixPath(repository.replace(":", "/").rstrip("/")).name.removesuffix(".git") or repository
