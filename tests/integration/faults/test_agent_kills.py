"""`kill -9` of the agent at every step of a conversation of ten turns: what comes of it is what comes of an undisturbed
one, byte by byte, and no turn that was checkpointed is asked, or paid, for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from quarterdeck.demo.git import blobs, tree
from quarterdeck.stack.ports import free_ports
from services.jobs import scheduling
from services.runtime.jetstream import Bus
from services.vcs.__main__ import Vcs
from services.vcs.settings import VcsSettings
from services.vcs.worktrees import worktrees
from tests.integration.agent.fleet import VCS_TOKEN, Fleet
from tests.integration.faults.conftest import StartService
from tests.integration.faults.kill_stage import Ending, Stage, StoryRun
from tests.integration.faults.kill_story import (
    COMMAND_TURN,
    GATED,
    INTERRUPTED,
    LARGE_BINARY,
    LARGE_TEXT,
    ODD_TEXT,
    TREE,
    TURNS,
    WHOLE,
    Story,
    Storyteller,
    make_origin,
)
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until

pytestmark = pytest.mark.timeout(300)
NODES = 2


def _steps(call: str, calls: Sequence[int], moments: Sequence[str] = ("before", "after")) -> list[str]:
    return [f"{moment}:{call}:{number}" for number in calls for moment in moments]


SAVES, TOOLS, DIFFS = range(1, 19), range(1, 20), range(1, 8)
"""How many of each an undisturbed attempt makes."""
EVERY_STEP = (
    *_steps("prepare", [1]),
    *_steps("request", range(1, TURNS + 1), ("before", "within", "after")),
    *_steps("save", SAVES),
    *_steps("tool", TOOLS),
    *_steps("diff", DIFFS),
    *_steps("commit", [1]),
    "before:deliver:1",
)
"""A reply and its results are a save each, but for the reply that is cut off, and the last, which has no results."""
AT_ONCE = 26
SOME_STEPS = (
    "before:prepare:1",
    *_steps("request", [1, 4, 7], ("before", "within", "after")),
    *_steps("save", [1, 2, 6, 11, 18]),
    *_steps("tool", [2, 8]),
    "before:save:15",  # the command has run, and nothing of it is stored
    "after:diff:4",
    "after:commit:1",
    "before:deliver:1",
)
JOINED = _steps("save", range(1, 9))
"""Of checkpoints that are stored together where they come together there are as many in any case."""
EVERY_STEP_AT_THE_GATE = (
    *_steps("request", range(1, GATED.turns + 1), ("before", "within", "after")),
    *_steps("save", range(1, 14)),
    *_steps("tool", range(1, 14)),
    *_steps("diff", range(1, 7)),
    *_steps("commit", [1, 2, 3]),
    *_steps("check", [1, 2, 3]),
    *_steps("restore", [1, 2, 3]),
    "before:deliver:1",
)
"""What the last calls came to is told before the tests, a save, and stored with what is said of them, another; the
tests look at the worktree, too.
"""
SOME_STEPS_AT_THE_GATE = (
    "after:tool:4",  # edited, and not told of it
    "before:restore:1",  # as its tests left it
    "before:save:5",
    "after:save:5",  # with its failing tests in the transcript
    "within:request:3",
    "after:save:13",  # all is stored, and nothing handed over
)
IN_A_ROW = (
    ("before:save:6", "after:request:1"),
    ("after:tool:9", "within:request:2"),
    ("within:request:7", "before:save:1"),
    ("after:prepare:1", "before:prepare:1"),
    ("after:save:14", "after:save:1"),
    ("after:commit:1", "before:commit:1"),
)


@pytest.fixture
async def nodes(domain: Domain, bus: Bus, database_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[list[Vcs]]:
    """Two vcs services, each with mirrors and worktrees of its own; they publish nothing."""
    async with AsyncExitStack() as stack:
        made = []
        for place, port in enumerate(free_ports(NODES)):
            root = tmp_path / f"node {place}"
            root.mkdir()
            names = {"DATABASE_URL": database_url, "NATS_URL": nats_url, "vcs_token": VCS_TOKEN, "vcs_root": root}
            settings = VcsSettings.model_validate(
                {**names, "vcs_listen": f"127.0.0.1:{port}", "allow_local_repositories": True}
            )
            made.append(Vcs(settings, domain.database, bus))
            stack.push_async_callback(made[-1].close)
            await made[-1].listen()
            stack.push_async_callback(made[-1].server.stop)
        yield made


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    """Where each run of the command leaves a line."""
    return tmp_path / "effects"


@pytest.fixture
async def stage(
    database_url: str,
    nats_url: str,
    domain: Domain,
    bus: Bus,
    nodes: list[Vcs],
    start: StartService,
    effects: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    # Nothing expires until a lease after Postgres has started: let that be over.
    monkeypatch.setattr(scheduling, "LEASE", timedelta(milliseconds=1))
    origin = make_origin(tmp_path)
    async with Storyteller(effects) as model:
        first = nodes[0].settings
        fleet = Fleet(database_url, nats_url, domain, bus, model, first.vcs_listen, first.vcs_root, origin)
        yield Stage(fleet, nodes, start, model.asked)


async def assert_as_undisturbed(stage: Stage, runs: Sequence[StoryRun], scratch: Path) -> None:
    """Each of ``runs`` but the first, which nobody killed, ended as that did and asked what that asked."""
    undisturbed, *killed = runs
    assert not undisturbed.kept
    whole = await stage.tree_of(undisturbed, scratch)
    expected = await stage.ending(undisturbed, whole)
    assert (expected.run["outcome"], len(expected.transcript)) == ("stored", undisturbed.story.messages)
    for run in killed:
        was_interrupted = any(kept.broke_off_command for kept in run.kept)
        _assert_same(await stage.ending(run, whole), expected.as_interrupted() if was_interrupted else expected)
        _assert_asked_no_more_than_it_must(stage, run, undisturbed)
    await stage.assert_all_is_accounted_for(runs)


def _assert_same(ending: Ending, expected: Ending) -> None:
    assert ending.run == expected.run
    assert ending.transcript == expected.transcript
    assert ending.changeset == expected.changeset
    assert ending.head == expected.head
    assert ending.usage == expected.usage


def _assert_asked_no_more_than_it_must(stage: Stage, run: StoryRun, undisturbed: StoryRun) -> None:
    """After each death the first request is that of the turn which was not stored, in the bytes it always had."""
    begin = 0
    for life, kept in enumerate(run.kept, 1):
        asked = _places(stage, run, life)
        assert asked == list(range(begin, begin + len(asked)))
        lost = begin + len(asked) - kept.turns
        assert 0 <= lost <= (2 if stage.joins else 1), "one reply at most was paid for and lost, or two stored together"
        begin = kept.turns
    last = _places(stage, run, len(run.kept) + 1)
    was_interrupted = any(kept.broke_off_command for kept in run.kept)
    assert last == list(range(begin, run.story.turns + was_interrupted))
    digests = {asked.place: asked.digest for asked in stage.asked(undisturbed)}
    for request in stage.asked(run):
        # From the interruption on, it has more to say.
        assert request.digest == digests.get(request.place) or (was_interrupted and request.place >= COMMAND_TURN)


def _places(stage: Stage, run: StoryRun, life: int) -> list[int]:
    return [asked.place for asked in stage.asked(run, life)]


async def kill_each(stage: Stage, steps: Sequence[str], *, heir: int = 0, story: Story = WHOLE) -> list[StoryRun]:
    """Runs that were killed at one of ``steps`` each, behind one that was not, and ended on the node ``heir``."""
    runs = await stage.submit(1 + len(steps), story)
    halts = {run.id: step for run, step in zip(runs[1:], steps, strict=True)}
    await stage.kill_at(halts, runs)
    assert all(run.kept for run in runs[1:]), "they were all killed before their end"
    await stage.finish(runs, node=heir)
    return runs


async def test_a_run_whose_agent_is_killed_ends_as_one_that_was_left_alone(stage: Stage, tmp_path: Path) -> None:
    runs = await kill_each(stage, SOME_STEPS)
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    assert not stage.worktrees()


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(("before:save:2", "after:save:5", "before:save:8"), id="some"),
        pytest.param(JOINED, id="all", marks=pytest.mark.slow),
    ],
)
async def test_so_it_is_where_steps_are_stored_together(stage: Stage, tmp_path: Path, steps: Sequence[str]) -> None:
    stage.joins = True
    runs = await kill_each(stage, steps)
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    assert not stage.worktrees()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(EVERY_STEP), AT_ONCE))
async def test_so_it_is_at_every_step(stage: Stage, tmp_path: Path, first: int) -> None:
    runs = await kill_each(stage, EVERY_STEP[first : first + AT_ONCE])
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    assert not stage.worktrees()


async def test_so_it_is_where_its_tests_fail_and_it_goes_on(stage: Stage, tmp_path: Path) -> None:
    """What it did beside the words that it is done is in the tree, and in what its model is told."""
    runs = await kill_each(stage, SOME_STEPS_AT_THE_GATE, story=GATED)
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    for run in runs:
        assert (await stage.fleet.changeset(run.id))["verified"]
        transcript = b"".join(await stage.fleet.transcript(run.id))
        assert transcript.count(b"The tests of the repository failed") == 2
        assert b"waste" not in (await stage.fleet.changeset(run.id))["patch"]
    assert not stage.worktrees()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(EVERY_STEP_AT_THE_GATE), AT_ONCE))
async def test_so_it_is_at_every_step_of_that(stage: Stage, tmp_path: Path, first: int) -> None:
    runs = await kill_each(stage, EVERY_STEP_AT_THE_GATE[first : first + AT_ONCE], story=GATED)
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    assert not stage.worktrees()


async def test_another_node_goes_on_with_all_that_was_in_the_worktree(
    stage: Stage, nodes: list[Vcs], tmp_path: Path
) -> None:
    """Binary files, renames, deletions, modes, links and files over 1 MB among it."""
    runs = await kill_each(stage, ("before:request:9", "after:save:13", "after:save:17"), heir=1)
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    held = tree(tmp_path / "scratch", await stage.tree_of(runs[1], tmp_path / "again"))
    assert {path: entry.mode for path, entry in held.items()} == TREE
    contents = blobs(tmp_path / "scratch", [entry.blob for entry in held.values()])
    assert contents[held["kept.bin"].blob] == LARGE_BINARY
    assert contents[held["media/image.bin"].blob] == bytes(range(256))
    assert contents[held["made.bin"].blob] == b"\0\1\xff\n\r"
    assert contents[held["odd.txt"].blob] == ODD_TEXT.replace("two", "three").encode()
    assert contents[held["table.txt"].blob] == LARGE_TEXT.encode()
    assert contents[held["to-app"].blob] == b"src/app.py"
    assert {(UUID(run_id), attempt) for run_id, attempt in stage.worktrees()} == {(run.id, 1) for run in runs[1:]}
    await nodes[0].janitor.run_once()  # of the node where they died
    assert not stage.worktrees()


@pytest.mark.slow  # two in a row at one step are killed below, where the command was broken off
async def test_agents_that_are_killed_one_after_another(stage: Stage, tmp_path: Path) -> None:
    runs = await stage.submit(1 + len(IN_A_ROW))
    for life in range(2):
        await stage.kill_at({run.id: each[life] for run, each in zip(runs[1:], IN_A_ROW, strict=True)}, runs)
    await stage.finish(runs)
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    assert {len(run.kept) for run in runs[1:]} == {2}
    assert not stage.worktrees()


async def test_an_agent_that_is_killed_behind_its_last_write_leaves_but_a_worktree(
    stage: Stage, nodes: list[Vcs], tmp_path: Path
) -> None:
    _, run = runs = await stage.submit(2)
    await stage.kill_at({run.id: "after:deliver:1"}, runs)
    assert not run.kept, "it had ended"
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    assert stage.worktrees() == [(str(run.id), 1)]
    await nodes[0].janitor.run_once()
    assert not stage.worktrees()


@pytest.mark.parametrize("place", ["tree_of_patch", pytest.param("_next_tick", marks=pytest.mark.slow)])
async def test_an_agent_that_is_killed_while_its_worktree_is_restored(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Before the files are there, and when they are and nobody was told."""
    _, run = runs = await stage.submit(2)
    await stage.kill_at({run.id: "before:request:9"}, runs)
    with monkeypatch.context() as patched:
        reached = _held(patched, place)
        restoring = await stage.begin()
        await asyncio.wait_for(reached.wait(), 60)
        await stage.kill(restoring, runs)
        await until(lambda: not stage.worktrees())  # the vcs noticed that its caller is gone
    await stage.finish(runs)
    assert len(run.kept) == 2
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")
    assert not stage.worktrees()


def _held(patched: pytest.MonkeyPatch, name: str) -> asyncio.Event:
    """Hold the vcs behind a function of its worktrees for ever; the event tells that it is there."""
    reached = asyncio.Event()
    original: Callable[..., Awaitable[object]] = vars(worktrees)[name]

    async def held(*arguments: object) -> object:
        result = await original(*arguments)
        reached.set()
        await asyncio.Event().wait()
        return result

    patched.setattr(worktrees, name, held)
    return reached


async def test_a_command_that_was_broken_off_is_not_run_again_and_the_model_is_told_once(
    stage: Stage, effects: Path, tmp_path: Path
) -> None:
    """Whether it had run or not; and what was told stays told when the next agent dies as well."""
    _, unrun, run = runs = await stage.submit(3)
    await stage.kill_at({unrun.id: "after:save:14", run.id: "after:tool:16"}, runs)
    assert _effects(effects) == 2, "of the undisturbed one, and of the one whose agent died behind it"
    await stage.kill_at({unrun.id: "after:save:1", run.id: "after:save:1"}, runs)
    assert _effects(effects) == 2
    for each in (unrun, run):
        before, behind = each.kept
        assert before.broke_off_command
        assert behind.transcript[:-1] == before.transcript
        assert INTERRUPTED in behind.transcript[-1]
    await stage.finish(runs)
    assert _effects(effects) == 4, "the model asked for it again"
    for each in (unrun, run):
        assert tuple(await stage.fleet.transcript(each.id))[: len(each.kept[1].transcript)] == each.kept[1].transcript
    await assert_as_undisturbed(stage, runs, tmp_path / "scratch")


def _effects(file: Path) -> int:
    return len(file.read_text().splitlines())
