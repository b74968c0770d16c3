"""Conversations on a whole stack: asked, answered and completed from the command line, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck import ConflictError
from services.contracts.rest import Job, Run
from services.contracts.words import JobKind, RunState
from tests.acceptance.stacks import DEADLINE_SECONDS, Stack, bare_origin, running_stack

pytestmark = pytest.mark.timeout(180)
PROMPT = "What is the colour?"
ASKS_AGAIN = "It cannot carry out: 'The second.'"


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Two agents, and a model that asks its user back."""
    async with running_stack(tmp_path_factory.mktemp("stack"), agents=2) as made:
        yield made


async def quarterdeck(stack: Stack, *words: str) -> Any:
    """What the command prints as JSON."""
    foreign = ("QUARTERDECK_", "ANTHROPIC_", "CLAUDE_", "DATABASE_URL", "NATS_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quarterdeck", *words, "--json"),
        env=kept | {"QUARTERDECK_DATA_DIR": str(stack.options.data_dir)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(printed)


async def until_waiting(stack: Stack, job: Job, *, attempt: int = 1) -> Run:
    def is_there(run: Run) -> bool:
        return run.attempt >= attempt and (run.state is RunState.WAITING or run.finished_at is not None)

    run = await stack.until_run(job, is_there)
    assert run.state is RunState.WAITING, run.error
    return run


async def asking(stack: Stack, folder: Path) -> Job:
    """A task whose model has asked back."""
    job = await stack.client.submit(PROMPT, [str(bare_origin(folder, "widget"))], kind=JobKind.TASK)
    await until_waiting(stack, job)
    return job


async def told_of(stack: Stack, job: Job, kind: str, field: str) -> list[str]:
    """What the ended job's events of ``kind`` have in ``field``, in order."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return [event.payload[field] async for event in stack.client.events(job.id) if event.kind == kind]


async def assert_one_transcript(stack: Stack, run: Run) -> None:
    """The prompt, a question, its answer, another question; nothing twice."""
    transcript = await stack.client.transcript(run.id)
    assert [message.role for message in transcript.messages] == ["user", "assistant", "user", "assistant"]
    assert "The second." in json.dumps(transcript.messages[2].content)
    assert run.usage.turns == 2, "no turn was asked for twice"


async def completed(stack: Stack, job: Job) -> Run:
    await stack.client.complete_job(job.id)
    done = await stack.finished(job)
    (run,) = await stack.runs(job)
    assert (done.state, run.state, run.outcome) == ("completed", "completed", "answered")
    assert run.summary is not None
    assert ASKS_AGAIN in run.summary, "what the model said last"
    return run


async def test_asked_answered_and_completed_from_the_command_line(stack: Stack, tmp_path: Path):
    origin = bare_origin(tmp_path, "widget")
    submitted = await quarterdeck(stack, "submit", PROMPT, "--kind", "task", "-r", str(origin))
    job = await stack.client.job(submitted["id"])
    await until_waiting(stack, job)
    message = await quarterdeck(stack, "say", str(job.id), "The second.")
    assert (message["number"], message["text"]) == (1, "The second.")
    await until_waiting(stack, job, attempt=2)
    assert (await quarterdeck(stack, "complete", str(job.id)))["state"] == "completed"
    (run,) = await stack.runs(job)
    assert (run.outcome, run.attempt) == ("answered", 2)
    await assert_one_transcript(stack, run)
    with pytest.raises(ConflictError, match="has ended"):
        await stack.client.say(job.id, "Too late.")


async def test_it_goes_on_elsewhere_when_its_agent_is_killed_while_it_waits(stack: Stack, tmp_path: Path):
    job = await asking(stack, tmp_path)
    for name in ("agent-1", "agent-2"):  # whichever had it
        await stack.signal(name, signal.SIGKILL)
    await stack.client.say(job.id, "The second.")
    await until_waiting(stack, job, attempt=2)
    run = await completed(stack, job)
    await assert_one_transcript(stack, run)
    first, *between, last = await told_of(stack, job, "run.started", "agent")
    assert first != last
    assert run.attempt == 2 + len(between)
    # Until it is known that the killed ones are gone it may be given to them: to each once at most.
    assert len({*between, last}) == len(between) + 1
    reasons = await told_of(stack, job, "run.requeued", "reason")
    # Nobody had it, so nobody lost it; but for an order that went out before NATS knew of its death (ADR 23).
    assert reasons[0] == "message"
    assert len(reasons) == 1 + len(between)
    assert set(reasons[1:]) <= {"unclaimed", "lost"}
    await stack.until_healthy()


@pytest.mark.parametrize("name", ["gateway", "scheduler", "nats", "postgres"])
async def test_it_waits_through_a_restart_of(stack: Stack, tmp_path: Path, name: str):
    job = await asking(stack, tmp_path)
    await stack.signal(name, signal.SIGKILL)
    await stack.until_healthy()
    await stack.client.say(job.id, "The second.")
    await until_waiting(stack, job, attempt=2)
    await assert_one_transcript(stack, await completed(stack, job))


async def test_a_message_is_not_lost_with_the_agent_that_was_to_answer_it(stack: Stack, tmp_path: Path):
    job = await asking(stack, tmp_path)
    await stack.client.say(job.id, "The second.")
    for name in ("agent-1", "agent-2"):
        await stack.signal(name, signal.SIGKILL)
    await until_waiting(stack, job, attempt=2)
    await assert_one_transcript(stack, await completed(stack, job))
    await stack.until_healthy()
