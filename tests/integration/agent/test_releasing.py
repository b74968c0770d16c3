"""What an agent says of the worktree that it gives back: whether anything of the attempt can still write there."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from services.agent.sandbox import Limits, Sandbox
from services.agent.vcs_client import VcsClient
from services.jobs.models import Hold
from tests.integration.agent.agents import NO_SANDBOX, StartAgent
from tests.integration.agent.fleet import VCS_TOKEN, Fleet
from tests.integration.agent.looking import work
from tests.integration.agent.messages_server import call, whole
from tests.integration.agent.sandboxes import DEADLINE_SECONDS, Trace, confined


class ListeningVcs(VcsClient):
    """Hears what is said when a worktree is given back."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.vcs_address, VCS_TOKEN)
        self.said: asyncio.Queue[bool] = asyncio.Queue()

    async def release(self, hold: Hold, *, reusable: bool = False) -> None:
        await super().release(hold, reusable=reusable)
        self.said.put_nowait(reusable)


async def sandbox_of(kind: Literal["auto", "none", "unavailable"]) -> Sandbox:
    if kind == "unavailable":
        return NO_SANDBOX
    return await confined() if kind == "auto" else await Sandbox.find("none")


@pytest.mark.parametrize(
    ("kind", "command", "reusable"),
    [
        ("unavailable", None, True),
        ("none", None, True),
        ("auto", "true", True),
        ("none", "true", False),
    ],
    ids=["no-sandbox", "nothing-started", "confined", "unconfined"],
)
async def test_a_worktree_is_reusable_where_all_that_ran_there_was_confined(
    fleet: Fleet,
    start_agent: StartAgent,
    kind: Literal["auto", "none", "unavailable"],
    command: str | None,
    reusable: bool,
) -> None:
    vcs = ListeningVcs(fleet)
    await start_agent(sandbox=await sandbox_of(kind), vcs=vcs)
    edit = whole(call(1, "write_file", path="new.txt", content="new\n"))
    fleet.model.answer(edit, whole(call(2, "task_complete", summary="Done.", status="done")))
    assert (await work(fleet, testCommand=command))["state"] == "publishing"
    assert await asyncio.wait_for(vcs.said.get(), DEADLINE_SECONDS) is reusable


async def cancelled(sandbox: Sandbox, worktree: Path) -> None:
    trace = Trace()
    task = asyncio.create_task(sandbox.run(trace.command.split(), worktree=worktree))
    assert await trace.runs()
    assert not sandbox.is_quiet
    task.cancel()
    await asyncio.wait([task])


async def timed_out(sandbox: Sandbox, worktree: Path) -> None:
    await sandbox.run(["sleep", "300"], worktree=worktree, limits=Limits(wall=timedelta(seconds=0.2)))


async def served(sandbox: Sandbox, worktree: Path) -> None:
    async with sandbox.open(["cat"], worktree=worktree):
        assert not sandbox.is_quiet


async def with_network(sandbox: Sandbox, worktree: Path) -> None:
    await sandbox.run(["true"], worktree=worktree, network=True)


@pytest.mark.parametrize(
    ("start", "is_quiet"), [(cancelled, True), (timed_out, True), (served, True), (with_network, False)]
)
async def test_a_confined_program_is_surely_gone_however_it_ended(
    tmp_path: Path, start: Callable[[Sandbox, Path], Awaitable[None]], is_quiet: bool
) -> None:
    shared = await confined()
    sandbox = shared.for_one_attempt()
    await start(sandbox, tmp_path)
    assert sandbox.is_quiet is is_quiet
    assert shared.for_one_attempt().is_quiet, "what one attempt started is no other's"
