"""Stores what a step of a turn adds: one statement, since a run makes two of them a turn."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

from services.jobs.errors import LeaseLostError
from services.jobs.models import Checkpoint, Hold, ModelUse, Standing, Usage
from services.jobs.unit import SQL
from services.runtime.postgres import ConflictError, Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "checkpointing.sql")
_NOTHING = ModelUse(Usage(), model="")


async def store(database: Database, hold: Hold, checkpoint: Checkpoint) -> Standing:
    """Store ``checkpoint``; safe to repeat where the answer of the first try was lost.

    Raises ``LeaseLostError``, ``StoreUnavailableError``.
    """
    columns = _columns(hold, checkpoint)
    is_retried = False

    async def work(connection: Connection) -> Record | None:
        nonlocal is_retried
        tried, is_retried = is_retried, True
        if not tried:
            with suppress(ConflictError):  # it is there already, or another try of it is under way
                return await _STATEMENTS.row(connection, "checkpoint", is_retried=False, **columns)
        async with connection.transaction():
            await _STATEMENTS.execute(connection, "lock", job_id=hold.job_id)
            return await _STATEMENTS.row(connection, "checkpoint", is_retried=True, **columns)

    row = await database.in_statement(work)
    if row is None:
        raise LeaseLostError(f"run {hold.run_id} is not held by attempt {hold.attempt} any more, or is to be cancelled")
    return Standing(has_unread=row["has_unread"], is_budgeted=row["is_budgeted"])


def _columns(hold: Hold, checkpoint: Checkpoint) -> dict[str, Any]:
    messages, tree, events = checkpoint.messages, checkpoint.tree, checkpoint.events
    return {
        "job_id": hold.job_id,
        "run_id": hold.run_id,
        "token": hold.token,
        "attempt": hold.attempt,
        "numbers": [message.number for message in messages],
        "roles": [message.role for message in messages],
        "bodies": [message.body for message in messages],
        "has_tree": tree is not None,
        "message": messages[-1].number if messages else 0,
        "patch": tree.patch if tree else None,
        "read_versions": dict(tree.read_versions) if tree else {},
        "head": checkpoint.head,
        "output_names": list(checkpoint.outputs),
        "output_bodies": list(checkpoint.outputs.values()),
        "read_through": checkpoint.read_through,
        "first_event_id": events[0].id if events else UUID(int=0),
        "event_ids": [draft.id for draft in events],
        "kinds": [draft.kind.value for draft in events],
        "data": [draft.data for draft in events],
        **_usage_columns(checkpoint.usage),
    }


def _usage_columns(use: ModelUse | None) -> dict[str, Any]:
    used = use or _NOTHING
    return {
        "has_usage": use is not None,
        "model": used.model,
        "input_tokens": used.tokens.input_tokens,
        "output_tokens": used.tokens.output_tokens,
        "cache_read_input_tokens": used.tokens.cache_read_input_tokens,
        "cache_creation_input_tokens": used.tokens.cache_creation_input_tokens,
        "total_tokens": used.tokens.total,
        "cost_microusd": used.cost_microusd,
        "raw": dict(used.raw),
    }
