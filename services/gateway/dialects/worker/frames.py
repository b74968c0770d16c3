"""What a session's clients are told of each event of its job: at most one frame. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import orjson

from services.contracts.rest import Run
from services.contracts.words import EventKind, JobState
from services.gateway.dialects.worker.models import iso_milliseconds
from services.gateway.dialects.worker.sessions import Session, failure_of
from services.gateway.events.live import Frame
from services.jobs.eventlog import payload_name

Payload: TypeAlias = Mapping[str, Any]
_TEXT = "text"
_KINDS = frozenset(EventKind)


def _stored(payload: Payload) -> str:
    files, added, removed = (payload.get(name, 0) for name in ("filesChanged", "insertions", "deletions"))
    return f"Change stored: {files} file(s), {added} line(s) added, {removed} removed"


def _pushed(payload: Payload) -> str:
    url = payload.get("url")
    return f"Published: {url}" if url else f"Pushed to {payload.get('branch', '')}"


_STATUS: Mapping[EventKind, Callable[[Payload], str]] = {
    EventKind.JOB_CANCEL_REQUESTED: lambda _: "Session is being ended",
    EventKind.RUN_DISPATCHED: lambda _: "Waiting for an agent",
    EventKind.RUN_STARTED: lambda _: "An agent has begun",
    EventKind.RUN_PREPARED: lambda _: "Workspace is ready",
    EventKind.RUN_REQUEUED: lambda payload: f"Goes on in another attempt: {payload.get('reason', '')}",
    EventKind.RUN_PUBLISHING: lambda _: "Publishing the change",
    EventKind.TURN_RESET: lambda payload: f"Turn {payload.get('turn', 0)} begins anew: {payload.get('reason', '')}",
    EventKind.TOOL_STARTED: lambda payload: f"{payload.get('name', '')}: {payload.get('subject', '')}",
    EventKind.TESTS_STARTED: lambda payload: f"Running tests: {payload.get('command', '')}",
    EventKind.TESTS_ENDED: lambda payload: "Tests passed" if payload.get("passed") else "Tests failed",
    EventKind.LOG: lambda payload: str(payload.get("message", "")),
    EventKind.PROGRESS: lambda payload: f"{payload.get('phase', '')}: {payload.get('percent', 0)} %",
    EventKind.CHANGESET_STORED: _stored,
    EventKind.CHANGESET_PUSHED: _pushed,
    EventKind.CHANGESET_FAILED: lambda payload: f"Not published: {payload.get('error', '')}",
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """``worktrees``: the folder that the vcs has them in, with a slash at its end; empty: not known.

    ``root``: of this API as its client reaches it, without a slash at its end. The local forge's pages are beside it.
    """

    worktrees: str
    root: str

    def link(self, url: str | None) -> str | None:
        """What a browser can open."""
        return f"{self.root}{url}" if url and url.startswith("/") else url


@dataclass(frozen=True, slots=True)
class Told:
    """One frame to be. ``data``: one line of JSON. ``turn``: that it belongs to; 0: to none."""

    name: str
    data: bytes
    turn: int = 0


def told_of(native: Frame, session: Session, addresses: Addresses) -> Told | None:
    """What is told in place of ``native``, one of the job's events but its last; None: nothing.

    Of a kind that only a later version knows, too: while services are replaced one by one, such events come.
    """
    if native.kind not in _KINDS:
        return None
    kind, event = EventKind(native.kind), orjson.loads(native.data)
    payload: Payload = event.get(payload_name(kind), {})
    if "url" in payload:
        payload = {**payload, "url": addresses.link(payload["url"])}
    told = _told(kind, payload, session)
    if told is None:
        return None
    name, data = told
    if name == "file_change":
        data["workspaceDir"] = f"{addresses.worktrees}{event.get('runId', '')}/{event.get('attempt', 0)}"
    return Told(name, _encoded(data, time_of(event)), int(payload.get("turn", 0)))


def _told(kind: EventKind, payload: Payload, session: Session) -> tuple[str, dict[str, Any]] | None:
    turn = payload.get("turn", 0)
    match kind:
        case EventKind.JOB_SUBMITTED:
            return "connected", {"message": f"Connected to session {session.id}", "sessionId": session.id}
        case EventKind.TURN_STARTED:
            return "claude_start", {"turn": turn, "prompt": session.prompt}
        case EventKind.DELTA if texts := _texts_of(payload):
            return "claude_delta", {"turn": turn, "content": "".join(texts)}
        case EventKind.TURN_ENDED:
            return "claude_end", {"turn": turn}
        case EventKind.FILE_CHANGED:
            words = f"{payload.get('change', 'changed')} {payload.get('path', '')}"
            return "file_change", {"message": words}
        case _:
            words_of = _STATUS.get(kind)
            return ("status", {"message": words_of(payload)}) if words_of else None


def _texts_of(delta: Payload) -> list[str]:
    """What the model says to people in it: no thinking, and no input of tools."""
    pieces = (delta, *delta.get("more", ()))
    return [piece.get("text", "") for piece in pieces if piece.get("type", _TEXT) == _TEXT]


def end_of(native: Frame, session: Session, run: Run | None, addresses: Addresses) -> Told:
    """What is told in place of the job's last event, `job.finished`."""
    event: Mapping[str, Any] = orjson.loads(native.data)
    state = event.get(payload_name(EventKind.JOB_FINISHED), {}).get("state")
    if state == JobState.COMPLETED:
        data: dict[str, Any] = {"sessionId": session.id, "turns": run.usage.turns if run else 0}
        return Told("complete", _encoded(data | _result(run, addresses), time_of(event)))
    words = "the session was ended" if state == JobState.CANCELLED else failure_of(run)
    return Told("error", _encoded({"message": words, "sessionId": session.id}, time_of(event)))


def gap_of(native: Frame, time: datetime) -> Told:
    """In place of the word that events are not kept any more."""
    missed: Mapping[str, Any] = orjson.loads(native.data)
    words = f"{missed['missedTo'] - missed['missedFrom'] + 1} older events are not kept any more"
    return Told("status", _encoded({"message": words}, iso_milliseconds(time)))


def time_of(event: Payload) -> str:
    return iso_milliseconds(datetime.fromisoformat(event["time"]))


def _result(run: Run | None, addresses: Addresses) -> dict[str, Any]:
    """Beside what the document has."""
    if run is None:
        return {}
    url = addresses.link(run.changeset.url) if run.changeset else None
    result = {"outcome": run.outcome, "summary": run.summary, "pullRequestUrl": url}
    return {name: value for name, value in result.items() if value is not None}


def _encoded(told: Mapping[str, Any], time: str) -> bytes:
    # ASCII alone: parsers that take U+2028 or U+0085 for the end of a line are not rare.
    return json.dumps({**told, "timestamp": time}, ensure_ascii=True, separators=(",", ":")).encode()
