"""A job's messages: what happened, what Claude Code would have printed line by line, and what users said. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from services.contracts.rest import TranscriptMessage
from services.contracts.words import EventKind, ExitReason, JobState, Outcome
from services.gateway.dialects.orchestrator.models import JobMessage, MessageType
from services.gateway.dialects.orchestrator.translation import NO_CHANGES
from services.jobs.eventlog import LoggedEvent

KINDS: Final = (
    EventKind.JOB_SUBMITTED,
    EventKind.JOB_CANCEL_REQUESTED,
    EventKind.RUN_STARTED,
    EventKind.RUN_REQUEUED,
    EventKind.RUN_WAITING,
    EventKind.RUN_MESSAGE,
    EventKind.RUN_PUBLISHING,
    EventKind.RUN_FINISHED,
    EventKind.CHANGESET_PUSHED,
    EventKind.CHANGESET_FAILED,
    EventKind.USAGE,
    EventKind.LOG,
)
"""The events that messages are made of."""
_SENTENCES = {
    EventKind.JOB_SUBMITTED: "Job queued",
    EventKind.JOB_CANCEL_REQUESTED: "Job cancelled",
    EventKind.RUN_PUBLISHING: "Pushing the change",
}
WAITING = "Claude waits for a message"
_ERROR_LEVELS = ("warning", "error")
_TOKENS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadInputTokens": "cache_read_input_tokens",
    "cacheCreationInputTokens": "cache_creation_input_tokens",
}


def messages(
    run_id: UUID, events: Iterable[LoggedEvent], transcript: Iterable[TranscriptMessage], *, root: str
) -> list[JobMessage]:
    """In order. ``events``: of ``KINDS``. ``root``: what the links to pages of ours begin with."""
    telling = _Telling(str(run_id), root)
    own = [event for event in events if event.run_id in (None, run_id)]
    items: list[LoggedEvent | TranscriptMessage] = [*own, *transcript]
    for item in sorted(items, key=_place):
        telling.tell(item)
    return telling.told


def _place(item: LoggedEvent | TranscriptMessage) -> tuple[datetime, int]:
    """By time; of what was stored at once, first what a turn used, then its message, then what followed from it."""
    if isinstance(item, TranscriptMessage):
        return item.created_at, 1
    return item.created_at, 0 if item.kind is EventKind.USAGE else 2


class _Telling:
    """Goes through what happened once, in order."""

    def __init__(self, session: str, root: str) -> None:
        self.told: list[JobMessage] = []
        self._session = session
        self._root = root
        self._now = datetime.min.replace(tzinfo=UTC)
        self._begun_at: datetime | None = None
        self._model: str | None = None
        self._last_tokens: Mapping[str, int] | None = None
        self._tokens: Counter[str] = Counter(dict.fromkeys(_TOKENS.values(), 0))
        self._last_error: str | None = None
        self._cost_usd = 0.0
        self._turns = 0
        self._is_introduced = False
        self._has_spoken = False

    def tell(self, item: LoggedEvent | TranscriptMessage) -> None:
        self._now = item.created_at
        if isinstance(item, LoggedEvent):
            if item.kind is EventKind.USAGE:
                self._used(item.data)
            elif item.kind in _SENTENCES:
                self._say(_SENTENCES[item.kind])
            else:
                self._event(item.kind, item.data)
        elif item.role == "assistant":
            self._assistant(item.content)
        elif results := _tool_results(item.content):
            self._print({"type": "user", "message": {"role": "user", "content": results}, "parent_tool_use_id": None})

    def _event(self, kind: EventKind, data: Mapping[str, Any]) -> None:
        match kind:
            case EventKind.RUN_STARTED:
                self._say("Job continued" if self._begun_at else "Job started")
                self._begun_at = self._now
            case EventKind.RUN_REQUEUED if data.get("reason") != "message":
                self._say(f"Job is to be continued: {data.get('error') or data.get('reason')}")
            case EventKind.RUN_WAITING:
                self._result(data.get("summary", ""))
                self._say(WAITING)
            case EventKind.RUN_MESSAGE:
                self._add(MessageType.USER_INPUT, data.get("text", ""))
            case EventKind.CHANGESET_PUSHED:
                self._say(f"Pull request: {self._link(data.get('url', ''))}")
            case EventKind.CHANGESET_FAILED:
                self._add(MessageType.STDERR, data.get("error", ""))
            case EventKind.RUN_FINISHED:
                self._finished(data)
            case EventKind.LOG:
                self._logged(data.get("level", "info"), data.get("message", ""))

    def _assistant(self, content: Any) -> None:
        if not self._is_introduced:
            self._print({"type": "system", "subtype": "init", "model": self._model})
            self._is_introduced = True
        self._turns += 1
        self._has_spoken = True
        message = {"type": "message", "role": "assistant", "model": self._model, "content": content}
        if self._last_tokens is not None:
            message["usage"] = self._last_tokens
            self._last_tokens = None
        self._print({"type": "assistant", "message": message, "parent_tool_use_id": None})

    def _used(self, data: Mapping[str, Any]) -> None:
        tokens = data.get("tokens", {})
        self._model = data.get("model")
        self._last_tokens = {ours: tokens.get(name, 0) for name, ours in _TOKENS.items()}
        self._tokens.update(self._last_tokens)
        self._cost_usd = data.get("runCostUsd", self._cost_usd)

    def _logged(self, level: str, message: str) -> None:
        if level in _ERROR_LEVELS:
            self._add(MessageType.STDERR, message)
        elif level == "info":
            self._say(message)

    def _finished(self, data: Mapping[str, Any]) -> None:
        state = data.get("state")
        if state == JobState.COMPLETED:
            self._result(data.get("summary", ""))
            self._say(f"Job completed: {NO_CHANGES}" if data.get("outcome") == Outcome.NO_CHANGES else "Job completed")
        elif state == JobState.FAILED:
            reason = data.get("exitReason")
            words = data.get("error") or str(reason)
            self._result(words, "error_max_turns" if reason == ExitReason.MAX_TURNS else "error_during_execution")
            if words != self._last_error:  # a push that failed was told already
                self._add(MessageType.STDERR, words)
            self._say(f"Job failed: {words}")

    def _result(self, words: str, subtype: str = "success") -> None:
        """What ends each of Claude's answers; nothing where it has said nothing since the last one."""
        if not self._has_spoken:
            return
        self._has_spoken = False
        took = self._now - (self._begun_at or self._now)
        self._print(
            {
                "type": "result",
                "subtype": subtype,
                "is_error": subtype != "success",
                "duration_ms": round(took.total_seconds() * 1_000),
                "num_turns": self._turns,
                "result": words,
                "total_cost_usd": self._cost_usd,
                "usage": dict(self._tokens),
            }
        )

    def _link(self, url: str) -> str:
        return f"{self._root}{url}" if url.startswith("/") else url

    def _print(self, line: Mapping[str, Any]) -> None:
        self._add(MessageType.STDOUT, orjson.dumps({**line, "session_id": self._session}).decode())

    def _say(self, words: str) -> None:
        self._add(MessageType.SYSTEM, words)

    def _add(self, kind: MessageType, content: str) -> None:
        if kind is MessageType.STDERR:
            self._last_error = content
        self.told.append(JobMessage(type=kind, content=content, created_at=self._now))


def _tool_results(content: Any) -> Sequence[Any]:
    """What tools answered; the rest of a user's message is told as what the user said."""
    return list(_blocks(content, "tool_result"))


def _blocks(content: Any, kind: str) -> Iterator[Any]:
    if isinstance(content, list):
        yield from (block for block in content if isinstance(block, dict) and block.get("type") == kind)
