"""What a whole run shows from outside: what its model was offered and answered, and what was told of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from services.contracts.words import EventKind, RunState
from services.runtime.postgres import Record
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import Json

ENDS = (RunState.COMPLETED, RunState.FAILED, RunState.PUBLISHING)


async def work(fleet: Fleet, **fields: Any) -> Record:
    """Submit a job of one run, as ``Fleet.submit`` does, and wait for what the run comes to with its agent."""
    return await fleet.until_run(await fleet.dispatch(**fields), *ENDS)


def offered(request: Json) -> set[str]:
    return {tool["name"] for tool in request["tools"]}


def system(request: Json) -> str:
    (block,) = request["system"]
    return str(block["text"])


async def answers(fleet: Fleet, run_id: UUID) -> dict[str, Json]:
    """The stored results of tool calls, by the call's id."""
    blocks = await _user_blocks(fleet, run_id)
    return {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}


async def words_to_the_model(fleet: Fleet, run_id: UUID) -> list[str]:
    """The stored texts that are no results: the prompt, and what the service said on its own account."""
    return [block["text"] for block in await _user_blocks(fleet, run_id) if block["type"] == "text"]


async def _user_blocks(fleet: Fleet, run_id: UUID) -> list[Json]:
    messages = [orjson.loads(body) for body in await fleet.transcript(run_id)]
    return [block for message in messages if message["role"] == "user" for block in message["content"]]


async def told(fleet: Fleet, run_id: UUID, kind: EventKind) -> list[Json]:
    """What the durable events of this kind say."""
    events = await fleet.domain.events(await fleet.job_of(run_id))
    return [event.data for event in events if event.run_id == run_id and event.kind is kind]


async def logged(fleet: Fleet, run_id: UUID) -> list[str]:
    return [line["message"] for line in await told(fleet, run_id, EventKind.LOG)]
