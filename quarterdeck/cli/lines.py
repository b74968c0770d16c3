"""A durable event as one plain line, for where there is no terminal to redraw."""

from __future__ import annotations

from quarterdeck.sse import Event

_PHRASES = {
    "job.submitted": "submitted with {runs} run(s)",
    "job.started": "started",
    "job.cancel_requested": "cancelling was asked for",
    "job.finished": "{state} {outcome}",
    "run.started": "started on {agent}",
    "run.prepared": "worktree ready at {baseSha}",
    "run.requeued": "queued again: {reason} {error}",
    "run.waiting": "{summary} (waits for you: `quarterdeck say`, or `quarterdeck complete`)",
    "run.message": "you said: {text}",
    "run.publishing": "publishing",
    "run.finished": "{state} {outcome} {exitReason} {error}",
    "turn.started": "turn {turn}",
    "turn.reset": "turn {turn} starts over: {reason}",
    "tool.started": "{name} {subject}",
    "file.changed": "{change} {path}",
    "tests.started": "tests: {command}",
    "tests.ended": "tests ended with exit code {exitCode}",
    "log": "{level}: {message}",
    "changeset.stored": "changeset {changesetId}: {filesChanged} file(s), +{insertions} -{deletions}",
    "changeset.pushed": "pushed {branch} at {commitSha} {url}",
    "changeset.failed": "changeset failed: {error}",
    "changeset.updated": "changeset {state}: checks {checks}, review {review} {url}",
    "gap": "events {missedFrom} to {missedTo} are no longer kept",
}
_NUMBERS = frozenset({"runs", "turn", "filesChanged", "insertions", "deletions", "exitCode"})


class _Payload(dict[str, object]):
    """A payload whose defaults were left out: 0 for a number, nothing for a text."""

    def __missing__(self, key: str) -> object:
        return 0 if key in _NUMBERS else ""


def line(event: Event, name: str) -> str | None:
    """The line for an event of the repository ``name`` (empty: of the job); None for what is not worth one."""
    phrase = _PHRASES.get(event.kind)
    if phrase is None:
        return None
    when = event.time.astimezone().strftime("%H:%M:%S") if event.time else "        "
    words = " ".join(phrase.format_map(_Payload(event.payload)).split())
    return f"{when} {name or 'job'}: {words}"
