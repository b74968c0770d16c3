"""Real processes, killed at bad moments: every job still ends, with one branch and one commit each."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck import ApiError, Client
from quarterdeck.stack.detached import start_detached
from quarterdeck.stack.info import read_info
from quarterdeck.stack.lock import is_held
from quarterdeck.stack.options import DataFolder
from services.contracts.words import RunState
from tests.acceptance.stacks import (
    Stack,
    assert_delivered_once,
    bare_origin,
    branches,
    running_stack,
    until,
)

pytestmark = pytest.mark.timeout(180)
TURN_DELAY_MS = 700


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Two agents, and a model slow enough to be interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUARTERDECK_OFFLINE_TURN_DELAY_MS", str(TURN_DELAY_MS))
        async with running_stack(tmp_path_factory.mktemp("stack"), agents=2) as made:
            yield made


def agent_of(name: str) -> str:
    """The stack's name of a process, from a node's: `agent-1-98687f34` → `agent-1`."""
    return name.rpartition("-")[0]


async def messages_of(stack: Stack, run_id: object) -> list[tuple[int, str]]:
    transcript = await stack.client.transcript(str(run_id))
    return [(message.number, message.role) for message in transcript.messages]


@pytest.mark.parametrize("kill", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
async def test_a_run_goes_on_elsewhere_when_its_agent_is_gone(stack: Stack, tmp_path: Path, kill: signal.Signals):
    """Killed, or stopped for longer than a lease and then continued: the zombie can write nothing any more."""
    origin = bare_origin(tmp_path, "widget")
    job = await stack.submit(origin)
    before = await stack.until_run(job, lambda run: run.usage.turns >= 2)
    assert before.agent is not None
    pid = await stack.signal(agent_of(before.agent), kill)
    if kill is signal.SIGSTOP:
        await stack.until_run(job, lambda run: run.attempt == 2)
        os.kill(pid, signal.SIGCONT)
    assert (await stack.finished(job)).state == "completed"
    (run,) = await stack.runs(job)
    assert run.attempt == 2
    assert_delivered_once(origin, run)
    numbers, roles = zip(*await messages_of(stack, run.id), strict=True)
    assert list(numbers) == list(range(1, len(numbers) + 1))
    assert list(roles) == [("user", "assistant")[index % 2] for index in range(len(roles))]
    assert run.usage.turns == roles.count("assistant"), "no checkpointed turn was asked for twice"
    await stack.until_healthy()


@pytest.mark.parametrize("name", ["scheduler", "gateway", "nats", "postgres", "vcs"])
async def test_a_job_ends_whatever_else_is_killed_under_it(stack: Stack, tmp_path: Path, name: str):
    origins = [bare_origin(tmp_path, f"widget-{number}") for number in range(3)]
    job = await stack.submit(*origins)
    await stack.until_run(job, lambda run: run.usage.turns >= 1)
    await stack.signal(name, signal.SIGKILL)
    assert (await stack.finished(job)).state == "completed"
    for origin, run in zip(origins, await stack.runs(job), strict=True):
        assert_delivered_once(origin, run)
    await stack.until_healthy()


async def test_jobs_are_accepted_while_nats_is_away(stack: Stack, tmp_path: Path):
    origin = bare_origin(tmp_path, "widget")
    await stack.signal("nats", signal.SIGSTOP)
    try:
        job = await stack.submit(origin)
    finally:
        await stack.signal("nats", signal.SIGCONT)
    assert (await stack.finished(job)).state == "completed"
    assert_delivered_once(origin, (await stack.runs(job))[0])


def held_push(origin: Path, folder: Path) -> tuple[Path, Path]:
    """Have ``origin`` hold pushes: the first file says that one has begun, making the second lets it go on."""
    entered, go_on = folder / "entered", folder / "go-on"
    hook = origin / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\ntouch {entered}\nwhile [ ! -e {go_on} ]; do sleep 0.05; done\n")
    hook.chmod(0o755)
    return entered, go_on


async def until_exists(path: Path) -> None:
    async def exists() -> bool:
        return await asyncio.to_thread(path.exists)

    await until(exists)


async def test_vcs_killed_in_the_middle_of_a_push_pushes_once(stack: Stack, tmp_path: Path):
    origin = bare_origin(tmp_path, "widget")
    entered, go_on = held_push(origin, tmp_path)
    job = await stack.submit(origin)
    await until_exists(entered)
    await stack.signal("vcs", signal.SIGKILL)
    go_on.touch()
    assert (await stack.finished(job)).state == "completed"
    assert_delivered_once(origin, (await stack.runs(job))[0])
    await stack.until_healthy()


async def test_a_push_under_way_cannot_be_cancelled(stack: Stack, tmp_path: Path):
    origin = bare_origin(tmp_path, "widget")
    entered, go_on = held_push(origin, tmp_path)
    job = await stack.submit(origin)
    await until_exists(entered)
    with pytest.raises(ApiError, match="pushed at this moment") as refused:
        await stack.client.cancel_job(job.id)
    go_on.touch()
    assert refused.value.status == 409
    assert (await stack.finished(job)).state == "completed"


async def test_a_cancelled_run_stops_at_once_and_pushes_nothing(stack: Stack, tmp_path: Path):
    origin = bare_origin(tmp_path, "widget")
    job = await stack.submit(origin)
    run = await stack.until_run(job, lambda run: run.usage.turns >= 1)
    await stack.client.cancel_job(job.id)
    again = await stack.client.cancel_job(job.id)
    assert again.cancel_requested_at is not None
    async with asyncio.timeout(10):
        assert (await stack.client.wait(job.id)).state == "cancelled"
    (run,) = await stack.runs(job)
    assert run.state is RunState.CANCELLED
    assert branches(origin) == []
    assert not (DataFolder(stack.options.data_dir).vcs / "worktrees" / str(run.id) / "1").exists()


async def test_an_unreachable_repository_fails_alone_with_git_s_words(stack: Stack, tmp_path: Path):
    origin = bare_origin(tmp_path, "widget")
    inside = "https://127.0.0.1:9/none.git"
    job = await stack.submit(origin, tmp_path / "nothing-here", inside, "http://forge.invalid/none.git")
    done = await stack.finished(job)
    assert (done.state, done.outcome) == ("completed", "partial")
    good, missing, private, plain = await stack.runs(job)
    assert_delivered_once(origin, good)
    assert [each.exit_reason for each in (missing, private, plain)] == ["clone_failed"] * 3
    assert missing.error is not None
    assert "does not appear to be a git repository" in missing.error
    assert private.error is not None
    assert "QUARTERDECK_GIT_ALLOWED_REMOTES" in private.error
    assert plain.error is not None
    assert "use https" in plain.error


@pytest.mark.slow  # the short run of chaos kills everything at once, too
async def test_after_kill_9_of_everything_the_job_still_ends_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUARTERDECK_OFFLINE_TURN_DELAY_MS", str(TURN_DELAY_MS))
    origin = bare_origin(tmp_path, "widget")
    async with running_stack(tmp_path / "data") as stack:
        job = await stack.submit(origin)
        await stack.until_run(job, lambda run: run.usage.turns >= 2)
        for pid in await pids_of(stack):
            os.kill(pid, signal.SIGKILL)

        async def is_free() -> bool:
            return not is_held(DataFolder(stack.options.data_dir).lock)

        await until(is_free)
        again = await start_detached(stack.options)
        async with Client(again.address, again.api_key) as client:
            stack.client = client
            assert (await stack.finished(job)).state == "completed"
            assert_delivered_once(origin, (await stack.runs(job))[0])


async def pids_of(stack: Stack) -> list[int]:
    """Every process of the stack, its supervisor first: nothing is to be started again."""
    info = read_info(DataFolder(stack.options.data_dir).info)
    assert info is not None
    return [info.pid, *info.processes.values()]
