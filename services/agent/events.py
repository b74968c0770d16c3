"""The events of a run as the agent tells them: drafts of durable ones, and deltas straight to NATS."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

from uuid_utils.compat import uuid7

from services.agent.model import Fragment, Reply
from services.agent.tools import FileChange, ToolCall, ToolResult
from services.contracts import subjects
from services.contracts.text import storable
from services.contracts.words import EventKind
from services.jobs.eventlog import encode_event
from services.jobs.models import Hold, ModelUse, Usage
from services.jobs.unit import Draft
from services.runtime.jetstream import Bus

DELTA_EVERY = timedelta(milliseconds=50)
"""Deltas are merged to at most 20 a second a run."""
_MICRO = 1_000_000
_MAX_DELTA_CHARACTERS = 100_000


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
    data = {
        "turn": turn,
        "model": storable(use.model),
        "tokens": _tokens(use.tokens),
        "costUsd": (use.cost_microusd or 0) / _MICRO,
        "runCostUsd": run_microusd / _MICRO,
        "isUnpriced": use.cost_microusd is None,
    }
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
    return Draft(EventKind.LOG, {"level": level, "message": storable(message)})


class DeltaStream:
    """Sends the fragments of one run's replies, merged while they wait; losing one loses nothing durable."""

    def __init__(self, bus: Bus, hold: Hold) -> None:
        self._bus = bus
        self._hold = hold
        self._pending: deque[tuple[int, Fragment]] = deque()
        self._flushing: asyncio.Task[None] | None = None

    def add(self, turn: int, fragment: Fragment) -> None:
        """Queue a fragment; it goes out within 50 ms."""
        last = self._pending[-1] if self._pending else None
        if last and last[0] == turn and (last[1].type, last[1].block) == (fragment.type, fragment.block):
            merged = Fragment(fragment.type, fragment.block, last[1].text + fragment.text)
            self._pending[-1] = (turn, merged)
        else:
            self._pending.append((turn, fragment))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_soon(), name="deltas")

    async def _flush_soon(self) -> None:
        # The first fragment goes at once; what comes within the next 50 ms goes together.
        await self._send()
        await asyncio.sleep(DELTA_EVERY.total_seconds())
        self._flushing = None
        if self._pending:
            self._flushing = asyncio.create_task(self._flush_soon(), name="deltas")

    async def flush(self) -> None:
        """Send what waits; call it before the durable event that the deltas lead up to."""
        await self._send()

    async def _send(self) -> None:
        # One by one: what `reset` forgets meanwhile must not go out behind it.
        while self._pending:
            turn, fragment = self._pending.popleft()
            text = storable(fragment.text[:_MAX_DELTA_CHARACTERS])
            data = {"turn": turn, "type": fragment.type, "text": text, "block": fragment.block}
            await self._bus.publish_unstored(self._subject(EventKind.DELTA), self._encoded(EventKind.DELTA, data))

    async def reset(self, turn: int, reason: str) -> None:
        """Say that the deltas of ``turn`` so far are void."""
        self._pending.clear()
        data = {"turn": turn, "reason": storable(reason)}
        await self._bus.publish_unstored(self._subject(EventKind.TURN_RESET), self._encoded(EventKind.TURN_RESET, data))

    async def progress(self, phase: str, percent: int) -> None:
        """Tell how far a long step of Git has come."""
        data = {"phase": storable(phase), "percent": percent}
        await self._bus.publish_unstored(self._subject(EventKind.PROGRESS), self._encoded(EventKind.PROGRESS, data))

    def close(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()

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
        )
