"""The events of a run as the agent tells them: drafts of durable ones, and deltas straight to NATS."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

from services.agent.fragments import Fragments
from services.agent.model import Fragment, Reply
from services.agent.tools import FileChange, ToolCall, ToolResult
from services.contracts import subjects
from services.contracts.text import clipped, storable
from services.contracts.words import EventKind
from services.jobs.eventlog import MOST_BYTES, MOST_LINE_CHARACTERS, encode_event
from services.jobs.models import Hold, ModelUse, Usage
from services.jobs.unit import Draft
from services.runtime.ids import uuid7
from services.runtime.jetstream import Bus

MOST_A_SECOND = 20
"""Deltas of one run."""
KEPT_FOR_ENDS = 2
"""Of these: an end is told at once, as what is told behind it would otherwise come before."""
DELTA_EVERY = timedelta(seconds=1) / 16
"""While a reply streams; a turn's first does not wait for it."""
_MICRO = 1_000_000


def prepared(data: dict[str, Any]) -> Draft:
    """``data``: baseSha and branch."""
    return Draft(EventKind.RUN_PREPARED, data)


def turn_started(turn: int, model: str) -> Draft:
    return Draft(EventKind.TURN_STARTED, {"turn": turn, "model": model})


def turn_ended(turn: int, reply: Reply, duration: timedelta) -> Draft:
    milliseconds = round(duration.total_seconds() * 1000)
    data = {"turn": turn, "stopReason": reply.stop_reason, "usage": _tokens(reply.usage), "durationMs": milliseconds}
    return Draft(EventKind.TURN_ENDED, data)


def tool_started(turn: int, call: ToolCall, subject: str) -> Draft:
    data = {"turn": turn, "toolUseId": call.id, "name": storable(call.name), "subject": storable(subject)}
    return Draft(EventKind.TOOL_STARTED, data)


def usage(turn: int, use: ModelUse, run_microusd: int) -> Draft:
    """``run_microusd``: what the run has cost so far, with this."""
    data: dict[str, Any] = {
        "turn": turn,
        "model": storable(use.model),
        "tokens": _tokens(use.tokens),
        "runCostUsd": run_microusd / _MICRO,
        "isUnpriced": use.cost_microusd is None,
    }
    if use.cost_microusd is not None:
        data["costUsd"] = use.cost_microusd / _MICRO
    return Draft(EventKind.USAGE, data)


def _tokens(used: Usage) -> dict[str, int]:
    return {
        "inputTokens": used.input_tokens,
        "outputTokens": used.output_tokens,
        "cacheReadInputTokens": used.cache_read_input_tokens,
        "cacheCreationInputTokens": used.cache_creation_input_tokens,
    }


def tool_ended(turn: int, call: ToolCall, result: ToolResult) -> Draft:
    milliseconds = round(result.took.total_seconds() * 1000)
    data: dict[str, Any] = {
        "turn": turn,
        "toolUseId": call.id,
        "name": storable(call.name),
        "isError": result.is_error,
        "durationMs": milliseconds,
    }
    return Draft(EventKind.TOOL_ENDED, data)


def file_changed(change: FileChange) -> Draft:
    return Draft(EventKind.FILE_CHANGED, {"path": storable(change.path), "change": change.change})


def log_line(level: str, message: str) -> Draft:
    return Draft(EventKind.LOG, {"level": level, "message": clipped(storable(message), MOST_LINE_CHARACTERS)})


class DeltaStream:
    """Sends the fragments of one run's replies, joined while they wait; losing one loses nothing durable.

    No second has more than 20 deltas, but where over ten turns end in it: each end tells what is left of its turn.
    """

    def __init__(self, bus: Bus, hold: Hold) -> None:
        self._bus = bus
        self._hold = hold
        self._waiting = Fragments()
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._sent: deque[float] = deque(maxlen=MOST_A_SECOND - KEPT_FOR_ENDS)
        """When the last ones were."""
        self._turn: int | None = None

    def add(self, turn: int, fragment: Fragment) -> None:
        """Queue a fragment. A turn's first goes out at once, what follows within 62.5 ms, where the second has room."""
        self._waiting.add(turn, fragment)
        self._send_later()

    def _send_later(self) -> None:
        if self._timer is None and self._sending is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds_to_wait(), self._begin_sending)

    def _begin_sending(self) -> None:
        self._timer = None
        self._sending = asyncio.create_task(self._send_next(), name="deltas")

    async def _send_next(self) -> None:
        is_early = self._seconds_to_wait() > 0  # a turn has ended since, and what waits now is of another
        data = None if is_early else self._waiting.take(is_end=False)
        try:
            if data is not None:
                await self._send(data)
        finally:
            self._sending = None
        if self._waiting.turn is not None and (is_early or data is not None):
            self._send_later()

    def _seconds_to_wait(self) -> float:
        now, free_at = asyncio.get_running_loop().time(), 0.0
        if self._sent and self._waiting.turn == self._turn:
            free_at = self._sent[-1] + DELTA_EVERY.total_seconds()
        if len(self._sent) == self._sent.maxlen:
            free_at = max(free_at, self._sent[0] + 1)
        return max(free_at - now, 0)

    async def flush(self) -> None:
        """Send what waits; call it before the durable event that the deltas lead up to, and where nothing follows."""
        self._stop_waiting()
        while (data := self._waiting.take(is_end=True)) is not None:
            await self._send(data)

    async def _send(self, data: dict[str, Any]) -> None:
        self._turn = data["turn"]
        self._sent.append(asyncio.get_running_loop().time())
        await self._bus.publish_unstored(self._subject(EventKind.DELTA), self._encoded(EventKind.DELTA, data))

    async def reset(self, turn: int, reason: str) -> None:
        """Say that the deltas of ``turn`` so far are void."""
        self._stop_waiting()
        self._waiting.clear()
        self._turn = None  # the first of what comes in its place is a first again
        data = {"turn": turn, "reason": storable(reason)}
        await self._bus.publish_unstored(self._subject(EventKind.TURN_RESET), self._encoded(EventKind.TURN_RESET, data))

    async def progress(self, phase: str, percent: int) -> None:
        """Tell how far a long step of Git has come."""
        data = {"phase": storable(phase), "percent": percent}
        await self._bus.publish_unstored(self._subject(EventKind.PROGRESS), self._encoded(EventKind.PROGRESS, data))

    def close(self) -> None:
        self._stop_waiting()
        if self._sending is not None:
            self._sending.cancel()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _subject(self, kind: EventKind) -> str:
        return subjects.event(str(self._hold.job_id), str(self._hold.run_id), kind)

    def _encoded(self, kind: EventKind, data: dict[str, Any]) -> bytes:
        return encode_event(
            event_id=str(uuid7()),
            job_id=str(self._hold.job_id),
            run_id=str(self._hold.run_id),
            number=0,
            attempt=self._hold.attempt,
            kind=kind,
            time=datetime.now(UTC),
            data=data,
            most_bytes=MOST_BYTES,
        )
