"""Attempts cancelled from outside: how soon, what is then gone, and in which order that is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.agent.sandbox import Sandbox
from services.contracts.words import RunState
from services.jobs.heartbeat import Heartbeat
from services.jobs.models import Checkpoint, Hold
from services.jobs.running import Running
from tests.integration.agent.agents import Agent, HeldVcs, QuietHeartbeat, StartAgent
from tests.integration.agent.fleet import DEADLINE_SECONDS, Fleet, make_repository
from tests.integration.agent.messages_server import call, hanging, said, whole
from tests.integration.agent.sandboxes import Trace
from tests.integration.waiting import runs, until

READ = whole(call(1, "read_file", path="f.txt"))
EDIT = whole(call(2, "edit_file", path="f.txt", old_string="a", new_string="b"))
DONE = call(3, "task_complete", summary="Changed a to b.", status="done")
ENDS = (RunState.CANCELLED, RunState.PUBLISHING, RunState.COMPLETED, RunState.FAILED, RunState.QUEUED)


@dataclass(frozen=True)
class Left:
    """What there is of a run's work."""

    worktrees: list[str]
    model_replies: bool
    processes: list[int]


NOTHING = Left(worktrees=[], model_replies=False, processes=[])


class WatchedRunning(Running):
    """Notes what is left of the work when its cancel is about to be told."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.domain.units)
        self._fleet = fleet
        self.processes: list[int] = []
        self.left: list[Left] = []

    def look(self, run_id: UUID) -> Left:
        processes = [pid for pid in self.processes if runs(pid)]
        return Left(self._fleet.worktrees(run_id), self._fleet.model_replies(), processes)

    async def cancelled(self, hold: Hold, *, left: Checkpoint | None = None) -> None:
        self.left.append(self.look(hold.run_id))
        await super().cancelled(hold, left=left)


@dataclass(frozen=True)
class Moment:
    """An agent in the middle of a run, which goes on when it is let go."""

    run_id: UUID
    agent: Agent
    running: WatchedRunning
    go_on: Callable[[], object]


Begin = Callable[[type[Heartbeat]], Awaitable[Moment]]


@pytest.fixture
def in_a_reply(fleet: Fleet, start_agent: StartAgent) -> Begin:
    """It has read and edited, and the model is in the middle of its last reply."""

    async def begin(heartbeat: type[Heartbeat]) -> Moment:
        running = WatchedRunning(fleet)
        agent = await start_agent(running=running, heartbeat=heartbeat)
        fleet.model.answer(READ, EDIT, hanging(said("Almost there."), DONE))
        run_id = await fleet.dispatch()
        await fleet.model.until(fleet.model.waits)
        assert running.look(run_id) == Left(worktrees=["1"], model_replies=True, processes=[])
        return Moment(run_id, agent, running, fleet.model.go_on.set)

    return begin


def _held(fleet: Fleet, start_agent: StartAgent, place: Any) -> Begin:
    async def begin(heartbeat: type[Heartbeat]) -> Moment:
        running, vcs = WatchedRunning(fleet), HeldVcs(fleet, place)
        agent = await start_agent(running=running, heartbeat=heartbeat, vcs=vcs)
        fleet.model.answer(READ, EDIT, whole(DONE))
        run_id = await fleet.dispatch()
        await vcs.until_reached()
        assert running.look(run_id).worktrees == ["1"]
        return Moment(run_id, agent, running, vcs.go_on.set)

    return begin


@pytest.fixture
def preparing(fleet: Fleet, start_agent: StartAgent) -> Begin:
    return _held(fleet, start_agent, "behind prepare")


@pytest.fixture
def delivering(fleet: Fleet, start_agent: StartAgent) -> Begin:
    """Its commit is made, and about to be recorded."""
    return _held(fleet, start_agent, "behind commit")


@pytest.fixture
def in_a_search(fleet: Fleet, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """It runs a program that does not end, nor does a program which that one has started."""
    program, pids = tmp_path / "slow search", tmp_path / "pids"
    program.write_text(f'#!/bin/sh\nsleep 600 &\necho $$ $! > "{pids}.new"\nmv "{pids}.new" "{pids}"\nwait\n')
    program.chmod(0o755)
    monkeypatch.setattr("services.agent.tools.ripgrep._program", lambda: str(program))

    async def begin(heartbeat: type[Heartbeat]) -> Moment:
        running = WatchedRunning(fleet)
        agent = await start_agent(running=running, heartbeat=heartbeat)
        fleet.model.answer(whole(call(1, "search_code", pattern="a")))
        run_id = await fleet.dispatch()
        await until(pids.exists)
        running.processes += map(int, pids.read_text().split())
        assert len(running.look(run_id).processes) == 2
        return Moment(run_id, agent, running, lambda: None)

    return begin


@pytest.fixture
def begin(request: pytest.FixtureRequest) -> Begin:
    """One of the moments above, by its name."""
    chosen: Begin = request.getfixturevalue(request.param)
    return chosen


async def cancelled(fleet: Fleet, moment: Moment) -> None:
    """Wait for the cancel, and look that nothing was left when it was told, and that nothing came of the run."""
    stored = await fleet.transcript(moment.run_id)
    run = await fleet.until_run(moment.run_id, *ENDS)
    assert (run["state"], run["attempt"], run["lease_token"]) == ("cancelled", 1, None)
    assert moment.running.left == [NOTHING]
    assert (await fleet.kinds(moment.run_id))[-2:] == ["run.finished", "job.finished"]
    transcript = await fleet.transcript(moment.run_id)
    assert transcript[: len(stored)] == stored
    assert all(b'"tool_result"' in body for body in transcript[len(stored) :]), "but what its last calls came to"
    assert await fleet.changesets(moment.run_id) == []
    assert (await fleet.publications_ordered(), fleet.branches()) == (0, ["main"]), "nothing is published"
    assert await fleet.domain.rows("SELECT FROM leases") == []


@pytest.mark.parametrize("begin", ["preparing", "in_a_reply", "in_a_search", "delivering"], indirect=True)
async def test_a_cancel_told_at_once_leaves_nothing(fleet: Fleet, begin: Begin):
    moment = await begin(QuietHeartbeat)
    await fleet.cancel(moment.run_id, tell=True)
    await cancelled(fleet, moment)


@pytest.mark.parametrize("begin", ["in_a_reply", "in_a_search"], indirect=True)
async def test_a_cancel_that_nobody_told_of_is_found_by_the_heartbeat(fleet: Fleet, begin: Begin):
    moment = await begin(Heartbeat)
    await fleet.cancel(moment.run_id, tell=False)
    await cancelled(fleet, moment)


@pytest.mark.parametrize("begin", ["preparing", "in_a_reply", "delivering"], indirect=True)
async def test_a_cancel_that_the_heartbeat_misses_is_found_at_the_next_write(fleet: Fleet, begin: Begin):
    moment = await begin(QuietHeartbeat)
    await fleet.cancel(moment.run_id, tell=False)
    moment.go_on()
    await cancelled(fleet, moment)


@pytest.mark.parametrize("begin", ["preparing", "in_a_reply", "in_a_search", "delivering"], indirect=True)
async def test_a_cancel_while_handing_back_is_still_a_cancel(fleet: Fleet, begin: Begin):
    moment = await begin(QuietHeartbeat)
    await fleet.cancel(moment.run_id, tell=False)
    await moment.agent.drain(0.1)
    await cancelled(fleet, moment)


async def test_the_request_to_the_model_is_closed(fleet: Fleet, in_a_reply: Begin):
    moment = await in_a_reply(QuietHeartbeat)
    await fleet.cancel(moment.run_id, tell=True)
    await fleet.model.until(fleet.model.gone)
    await cancelled(fleet, moment)


async def test_a_cancelled_job_stops_all_of_its_runs(fleet: Fleet, start_agent: StartAgent, tmp_path: Path):
    await start_agent()
    fleet.model.ever_after = hanging(said("Almost there."), DONE)
    job_id = await fleet.submit(repositories=[fleet.repository, make_repository(tmp_path, "other")])
    run_ids = [order.run_id for order in await fleet.order(job_id)]
    await fleet.model.until_asked(2)
    await fleet.domain.cancelling.request(fleet.domain.client, job_id)
    states = [(await fleet.until_run(run_id, *ENDS))["state"] for run_id in run_ids]
    assert states == ["cancelled", "cancelled"]
    assert (await fleet.domain.row("jobs", job_id))["state"] == "cancelled"
    assert [fleet.worktrees(run_id) for run_id in run_ids] == [[], []]


async def test_a_cancel_told_over_and_over_is_one(fleet: Fleet, in_a_reply: Begin):
    moment = await in_a_reply(Heartbeat)
    await fleet.cancel(moment.run_id, tell=True)
    while (await fleet.run(moment.run_id))["state"] == RunState.RUNNING:
        await fleet.cancel(moment.run_id, tell=True)
    await cancelled(fleet, moment)
    assert (await fleet.kinds(moment.run_id)).count("run.finished") == 1


async def test_what_is_told_of_another_run_stops_nothing(fleet: Fleet, in_a_reply: Begin):
    moment = await in_a_reply(QuietHeartbeat)
    await fleet.tell_cancel(UUID(int=1))
    await fleet.bus.ring("qd.ctl.events", b"")
    moment.go_on()
    assert (await fleet.until_run(moment.run_id, *ENDS))["state"] == "publishing"


async def test_cancel_and_delivery_at_once_agree(fleet: Fleet, delivering: Begin):
    """Whichever comes first stands; what was delivered all the same is not published any more."""
    moment = await delivering(QuietHeartbeat)
    cancelling = asyncio.create_task(fleet.cancel(moment.run_id, tell=True))
    moment.go_on()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await cancelling
    run = await fleet.until_run(moment.run_id, RunState.CANCELLED, RunState.PUBLISHING)
    assert run["cancel_requested_at"] is not None
    stored = await fleet.changesets(moment.run_id)
    assert len(stored) == (run["state"] == RunState.PUBLISHING)
    for changeset in stored:
        assert await fleet.domain.publishing.claim(changeset["id"], run["id"], dispatch=1, holder="vcs") is None


@pytest.mark.usefixtures("postgres_is_up_long")
@pytest.mark.parametrize("why", ["cancelled", "lost"])
async def test_a_command_has_time_to_end_where_its_run_is_cancelled_and_none_where_it_is_lost(
    fleet: Fleet, start_agent: StartAgent, tmp_path: Path, why: str
):
    await start_agent(sandbox=await Sandbox.find("none"))
    trace, asked = Trace(), tmp_path / "asked to end"
    command = f"trap 'touch \"{asked}\"; exit' TERM; {trace.command}; {trace.command}"
    fleet.model.answer(whole(call(1, "run_command", command=command)))
    run_id = await fleet.dispatch(permissionMode="bypassPermissions")
    assert await trace.runs()
    await (fleet.cancel(run_id, tell=True) if why == "cancelled" else fleet.lose(run_id))
    await fleet.until_released(run_id)
    assert (asked.exists(), trace.is_running()) == (why == "cancelled", False)
