"""Both clients at a real gateway: the printed example, and sessions that are left and taken up again at every event."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from quarterdeck.worker import ClaudeCodeWorker, ClaudeDelta, Code, Complete, Session, SessionEvent, WorkerError
from tests.contract.worker.conftest import Worker, database_url, nats_url, servers, shared_worker, template_database
from tests.contract.worker.stage import ODD_TEXT
from tests.contract.worker_sdk.document import example
from tests.contract.worker_sdk.toolchain import NAME, node

__all__ = ["database_url", "nats_url", "servers", "shared_worker", "template_database"]

SECONDS = 60
SAID = ["say 1: ", ODD_TEXT, "say 2: ", ODD_TEXT]


async def all_of(session: Session) -> list[SessionEvent]:
    async with asyncio.timeout(SECONDS):
        return [event async for event in session.events()]


def as_told(event: SessionEvent) -> dict[str, Any]:
    """By the names of the wire, without the id: behind that of an event is the same wherever it was read from."""
    names = {"workspace_dir": "workspaceDir", "session_id": "sessionId", "pull_request_url": "pullRequestUrl"}
    return {names.get(name, name): value for name, value in asdict(event).items() if name != "id" and value is not None}


def known(event: SessionEvent, told: dict[str, Any]) -> dict[str, Any]:
    """Of what the other client tells, what this one knows, too."""
    return {name: told.get(name) for name in as_told(event)}


async def test_the_printed_example(shared_worker: Worker, project: Path) -> None:
    (project / "real-example.mts").write_text(example(NAME, shared_worker.api.address))
    running = asyncio.create_task(node("real-example.mts", folder=project))
    session_id = await shared_worker.stage.newest("Refactor this function")
    await shared_worker.stage.play(session_id)
    code, out, err = await running
    assert (code, out) == (0, "".join(f"{said}\n" for said in SAID)), err


async def test_a_session_that_is_left_and_taken_up_at_every_event(shared_worker: Worker, project: Path) -> None:
    async with ClaudeCodeWorker(shared_worker.api.address) as client:
        session = await client.interactive.start("Explain", "owner/repo")
        reading = asyncio.create_task(all_of(session))
        await shared_worker.stage.play(session.session_id)
        events = await reading
        again = client.interactive.attach(session.session_id, last_event_id=events[0].id)
        taken = events[:1]
        while not isinstance(taken[-1], Complete):
            async for event in again.events():
                taken.append(event)
                break
        assert (await session.status()).status == "completed"
    assert [as_told(event) for event in taken] == [as_told(event) for event in events]
    assert [event.content for event in events if isinstance(event, ClaudeDelta)] == SAID
    environment = {"SESSION_ID": session.session_id, "LAST_EVENT_ID": events[0].id}
    code, out, err = await node(
        "real.mjs", folder=project, environment=environment | {"WORKER_ADDRESS": shared_worker.api.address}
    )
    assert code == 0, err
    told = json.loads(out)
    assert [as_told(event) for event in events[1:]] == [
        known(event, each) for event, each in zip(events[1:], told["events"], strict=True)
    ]
    assert (told["status"], told["refused"], told["unknown"]) == (
        "completed",
        ["VALIDATION_ERROR", 400],
        ["NOT_FOUND", 404],
    )
    assert told["healthVersion"]


async def test_the_end_of_a_session_stops_its_work(shared_worker: Worker) -> None:
    async with ClaudeCodeWorker(shared_worker.api.address) as client:
        session = await client.interactive.start("Explain", session_id=f"für später 日本 {uuid4()}")
        assert (await session.status()).status == "processing"
        await session.end()
        assert await all_of(session) == []
        with pytest.raises(WorkerError) as raised:
            await session.status()
        assert raised.value.code == Code.NOT_FOUND
        assert (await client.health()).quota.max_concurrent_sessions > 0
    assert (await shared_worker.stage.state_of(session.session_id)) in ("cancelling", "cancelled")


async def test_a_start_that_is_refused(shared_worker: Worker) -> None:
    async with ClaudeCodeWorker(shared_worker.api.address) as client:
        with pytest.raises(WorkerError, match="prompt") as raised:
            await client.interactive.start(" ", "owner/repo")
    assert (raised.value.code, raised.value.status) == (Code.VALIDATION_ERROR, 400)
