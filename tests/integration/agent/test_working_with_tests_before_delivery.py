"""Whole runs through the delivery gate: the service runs the tests itself before it hands anything over."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from quarterdeck.demo.git import commit_all
from services.agent.sandbox import Sandbox
from services.contracts.words import EventKind, RunState
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.looking import answers, logged, told, words_to_the_model, work
from tests.integration.agent.messages_server import Answer, call, refused, whole
from tests.integration.agent.sandboxes import Trace, confined
from tests.integration.jobs.domain import shown

READ = whole(call(1, "read_file", path="f.txt"))
MAKEFILE = whole(call(1, "write_file", path="Makefile", content="test:\n\ttrue\n"))
OVERLOADED = refused(529, "Overloaded", kind="overloaded_error")
PASSES_ON_B = "echo looking for b; grep b f.txt"


def edit(number: int, old: str, new: str) -> Answer:
    return whole(call(number, "edit_file", path="f.txt", old_string=old, new_string=new))


def done(number: int, summary: str = "Done.") -> Answer:
    return whole(call(number, "task_complete", summary=summary, status="done"))


@pytest.fixture
async def sandbox() -> Sandbox:
    return await confined()


async def test_passing_tests_are_told_with_what_is_delivered(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(READ, edit(2, "a", "b"), done(3))
    run = await work(fleet, testCommand=PASSES_ON_B)
    changeset = await fleet.changeset(run["id"])
    assert (run["state"], changeset["verified"], changeset["is_draft"]) == ("publishing", True, False)
    (began,) = await told(fleet, run["id"], EventKind.TESTS_STARTED)
    (ended,) = await told(fleet, run["id"], EventKind.TESTS_ENDED)
    assert began == {"command": PASSES_ON_B, "fixAttempt": 0}
    assert (ended["passed"], ended["exitCode"], ended["output"]) == (True, 0, "looking for b\nb\n")
    assert await published(fleet, run["id"]) == "delivered"


async def test_failing_tests_go_back_to_the_model(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(READ, edit(2, "a", "c"), done(3), edit(4, "c", "b"), done(5, "Now b."))
    run = await work(fleet, testCommand=PASSES_ON_B)
    assert (run["state"], run["summary"]) == ("publishing", "Now b.")
    _, words = await words_to_the_model(fleet, run["id"])
    assert "The tests of the repository failed after your change." in words
    assert "ended with exit code 1" in words
    assert "looking for b" in words
    assert (await answers(fleet, run["id"]))["toolu_3"]["content"] == "Noted."
    assert [each["passed"] for each in await told(fleet, run["id"], EventKind.TESTS_ENDED)] == [False, True]
    changeset = await fleet.changeset(run["id"])
    assert changeset["verified"]
    assert b"-a\n+b\n" in changeset["patch"]


async def test_tests_that_go_on_failing_leave_it_unverified(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(READ, edit(2, "a", "c"), done(3), edit(4, "c", "d"), done(5), done(6))
    run = await work(fleet, testCommand=PASSES_ON_B, maxFixAttempts=2)
    assert (run["state"], run["outcome"]) == ("completed", "unverified")
    assert [each["fixAttempt"] for each in await told(fleet, run["id"], EventKind.TESTS_STARTED)] == [0, 1, 2]
    changeset = await fleet.changeset(run["id"])
    assert (changeset["state"], changeset["verified"]) == ("stored", False)
    assert b"-a\n+d\n" in changeset["patch"]


async def test_what_is_unverified_is_published_as_a_draft_where_that_is_asked_for(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(READ, edit(2, "a", "c"), done(3))
    run = await work(fleet, testCommand=PASSES_ON_B, maxFixAttempts=0, onUnverified="draft")
    changeset = await fleet.changeset(run["id"])
    assert (run["state"], run["outcome"]) == ("publishing", None)
    assert (changeset["state"], changeset["is_draft"], changeset["verified"]) == ("queued", True, False)
    assert await published(fleet, run["id"]) == "unverified"


async def published(fleet: Fleet, run_id: UUID) -> str | None:
    """The run's outcome, once a vcs has published its changeset."""
    changeset = await fleet.changeset(run_id)
    publishing = fleet.domain.publishing
    publication = await publishing.claim(changeset["id"], run_id, dispatch=1, holder="vcs-1")
    assert publication is not None
    await publishing.delivered(
        publication.hold, shown("/1"), branch=publication.branch, commit_sha=publication.commit_sha
    )
    outcome: str | None = (await fleet.run(run_id))["outcome"]
    return outcome


async def test_what_tests_leave_behind_is_nobody_s(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    look = whole(call(4, "list_files", directory="."), call(5, "read_file", path="f.txt"))
    fleet.model.answer(READ, edit(2, "a", "c"), done(3), look, edit(6, "c", "b"), done(7))
    run = await work(fleet, testCommand=f"touch left.txt; echo waste >> f.txt; {PASSES_ON_B}")
    assert (await fleet.changeset(run["id"]))["verified"]
    answer = await answers(fleet, run["id"])
    assert "left.txt" not in answer["toolu_4"]["content"]
    assert "waste" not in answer["toolu_5"]["content"]
    patch = (await fleet.changeset(run["id"]))["patch"]
    assert b"-a\n+b\n" in patch
    assert b"left.txt" not in patch
    assert b"waste" not in patch


@pytest.fixture
def tested(tmp_path: Path) -> Path:
    """A repository whose tests a sandbox cannot run, so that none but others can pass."""
    files, bare = tmp_path / "files", tmp_path / "tested.git"
    files.mkdir()
    (files / "f.txt").write_text("a\n")
    (files / "go.mod").write_text("module x\n")
    commit_all(files, bare, "Begin")
    return bare


async def test_tests_are_found_where_they_are_to_be(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, tmp_path: Path
):
    await start_agent(sandbox=sandbox)
    files, bare = tmp_path / "files", tmp_path / "made.git"
    files.mkdir()
    (files / "f.txt").write_text("a\n")
    (files / "Makefile").write_text("test:\n\t@grep b f.txt\n")
    commit_all(files, bare, "Begin")
    fleet.model.answer(READ, edit(2, "a", "b"), done(3))
    run = await work(fleet, testCommand="auto", repositories=[bare])
    (began,) = await told(fleet, run["id"], EventKind.TESTS_STARTED)
    (ended,) = await told(fleet, run["id"], EventKind.TESTS_ENDED)
    assert (began["command"], ended["output"]) == ("make test", "b\n")
    assert (await fleet.changeset(run["id"]))["verified"]


async def test_the_work_does_not_choose_its_tests(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, tested: Path
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(MAKEFILE, done(2))
    run = await work(fleet, testCommand="auto", maxFixAttempts=0, repositories=[tested])
    (began,) = await told(fleet, run["id"], EventKind.TESTS_STARTED)
    assert (began["command"], run["outcome"]) == ("go test ./...", "unverified")


async def test_another_attempt_finds_the_same_tests(
    fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox, tested: Path
):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(MAKEFILE, OVERLOADED, OVERLOADED)
    run_id = await fleet.dispatch(testCommand="auto", maxFixAttempts=0, repositories=[tested])
    await fleet.until_run(run_id, RunState.QUEUED)
    fleet.model.answer(whole(call(2, "read_file", path="Makefile")), done(3))
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.COMPLETED, RunState.FAILED, RunState.PUBLISHING)
    (began,) = await told(fleet, run_id, EventKind.TESTS_STARTED)
    assert (began["command"], run["outcome"], run["attempt"]) == ("go test ./...", "unverified", 2)
    assert "true" in (await answers(fleet, run_id))["toolu_2"]["content"]
    assert b"+test:" in (await fleet.changeset(run_id))["patch"]


async def test_a_repository_without_tests_is_logged(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    """Also where the work brings the first."""
    await start_agent(sandbox=sandbox)
    fleet.model.answer(MAKEFILE, done(2))
    run = await work(fleet, testCommand="auto")
    assert run["state"] == "publishing"
    words = "no tests were found in what the run began from: the change is delivered without"
    assert await logged(fleet, run["id"]) == [words]
    assert await told(fleet, run["id"], EventKind.TESTS_STARTED) == []
    assert (await fleet.changeset(run["id"]))["verified"] is None


async def test_nothing_changed_is_not_tested(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(READ, done(2))
    run = await work(fleet, testCommand="false")
    assert run["outcome"] == "no_changes"
    assert await told(fleet, run["id"], EventKind.TESTS_STARTED) == []


async def test_another_attempt_goes_on_counting(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    fleet.model.answer(READ, edit(2, "a", "c"), done(3), OVERLOADED, OVERLOADED)
    run_id = await fleet.dispatch(testCommand=PASSES_ON_B, maxFixAttempts=1)
    await fleet.until_run(run_id, RunState.QUEUED)
    fleet.model.answer(done(4))
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.COMPLETED, RunState.FAILED)
    assert (run["outcome"], run["attempt"]) == ("unverified", 2)
    assert [each["fixAttempt"] for each in await told(fleet, run_id, EventKind.TESTS_STARTED)] == [0, 1]
    assert len(await words_to_the_model(fleet, run_id)) == 2, "the prompt, and one failure"


async def test_tests_that_were_broken_off_are_run_again(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    first, trace = await start_agent(sandbox=sandbox), Trace()
    fleet.model.answer(READ, edit(2, "a", "b"), done(3))
    run_id = await fleet.dispatch(testCommand=trace.command)
    assert await trace.runs()
    await first.drain(0.1)
    await fleet.until_run(run_id, RunState.QUEUED)
    assert await trace.runs(wanted=False)
    await start_agent(sandbox=sandbox)
    await fleet.again(run_id)
    assert await trace.runs()
    await fleet.cancel(run_id, tell=True)
    await fleet.until_run(run_id, RunState.CANCELLED)
    assert not trace.is_running()
    assert len(fleet.model.requests) == 3, "the model had said that it was done"
    assert await fleet.changesets(run_id) == []


async def test_what_cannot_be_tested_is_unverified(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(READ, edit(2, "a", "b"), done(3))
    run = await work(fleet, testCommand=PASSES_ON_B)
    assert (run["state"], run["outcome"]) == ("completed", "unverified")
    (ended,) = await told(fleet, run["id"], EventKind.TESTS_ENDED)
    assert not ended["passed"]
    assert "The tests could not be run: Commands cannot be run here" in ended["output"]


async def test_tests_have_only_the_time_that_they_are_given(fleet: Fleet, start_agent: StartAgent, sandbox: Sandbox):
    await start_agent(sandbox=sandbox)
    trace = Trace()
    fleet.model.answer(READ, edit(2, "a", "b"), done(3))
    run = await work(fleet, testCommand=trace.command, testTimeoutSeconds=1, maxFixAttempts=0)
    (ended,) = await told(fleet, run["id"], EventKind.TESTS_ENDED)
    assert (run["outcome"], ended["timedOut"], trace.is_running()) == ("unverified", True, False)
