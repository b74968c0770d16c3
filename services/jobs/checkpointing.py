"""Stores what a step of a turn adds: one statement, since a run makes two of them a turn; counts what was in vain."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from services.jobs.errors import LeaseLostError
from services.jobs.models import Checkpoint, Hold, ModelUse, Standing, Usage, VoidUse
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


async def leave(connection: Connection, hold: Hold, left: Checkpoint) -> bool:
    """Store the one message of ``left``, with its tree and outputs, in the transaction of whoever holds the run; False,
    and nothing is stored, where the message before it is not.
    """
    (message,) = left.messages
    is_left: bool = await _STATEMENTS.value(
        connection,
        "leave",
        run_id=hold.run_id,
        attempt=hold.attempt,
        number=message.number,
        role=message.role,
        body=message.body,
        has_tree=left.tree is not None,
        patch=left.tree.patch if left.tree else None,
        is_behind=left.tree.is_behind if left.tree else False,
        read_versions=dict(left.tree.read_versions) if left.tree else {},
        output_names=list(left.outputs),
        output_bodies=list(left.outputs.values()),
    )
    return is_left


async def count_void(database: Database, hold: Hold, uses: Sequence[VoidUse]) -> None:
    """Count ``uses`` for the run and its client, each once, however often they are told; also for a run that is to be
    cancelled: they were paid for all the same. What the run had reserved for its request is free again.

    Raises ``LeaseLostError``, ``StoreUnavailableError``.
    """
    columns = _void_columns(hold, uses)

    async def work(connection: Connection) -> bool:
        is_held: bool = await _STATEMENTS.value(connection, "count_void", **columns)
        return is_held

    if not await database.in_statement(work):
        raise LeaseLostError(f"run {hold.run_id} is not held by attempt {hold.attempt} any more")


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
        "is_behind": tree.is_behind if tree else False,
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


def _void_columns(hold: Hold, uses: Sequence[VoidUse]) -> dict[str, Any]:
    tokens = [void.use.tokens for void in uses]
    return {
        "job_id": hold.job_id,
        "run_id": hold.run_id,
        "token": hold.token,
        "attempt": hold.attempt,
        "ids": [void.id for void in uses],
        "void_turns": [void.turn for void in uses],
        "models": [void.use.model for void in uses],
        "inputs": [used.input_tokens for used in tokens],
        "outputs": [used.output_tokens for used in tokens],
        "cache_reads": [used.cache_read_input_tokens for used in tokens],
        "cache_creations": [used.cache_creation_input_tokens for used in tokens],
        "costs": [void.use.cost_microusd for void in uses],
        "raws": [dict(void.use.raw) for void in uses],
    }
