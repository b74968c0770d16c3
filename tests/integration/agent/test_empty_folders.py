"""Code runs without a repository: they begin with an empty folder, and deliver what they wrote into it as a patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.demo.git import git
from services.agent.prompts import prompt
from services.agent.vcs_client import VcsClient
from services.contracts.words import EventKind, Publish, RunState
from services.jobs.errors import NotPublishableError
from services.vcs.mirrors.empty import ROOT_SHA
from tests.integration.agent.agents import QuietHeartbeat, StartAgent
from tests.integration.agent.conftest import StartVcs
from tests.integration.agent.fleet import VCS_TOKEN, Fleet
from tests.integration.agent.looking import system, told, work
from tests.integration.agent.messages_server import call, hanging, whole
from tests.integration.agent.sandboxes import confined

WRITE = whole(
    call(1, "write_file", path="main.py", content="print('hello')\n"),
    call(2, "write_file", path="docs/notes.md", content="# Notes\n"),
)
DONE = whole(call(3, "task_complete", summary="Wrote two files.", status="done"))
EMPTY: dict[str, Any] = {"repositories": [], "publish": "none"}


def applied(patch: bytes, folder: Path) -> dict[str, str]:
    """What plain Git makes of a patch in an empty folder."""
    folder.mkdir()
    (folder / "patch").write_bytes(patch)
    git("apply", "patch", folder=folder)
    (folder / "patch").unlink()
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_it_goes_on_on_another_node_with_all_that_it_wrote(
    fleet: Fleet, start_agent: StartAgent, start_vcs: StartVcs, tmp_path: Path
):
    lost = await start_agent(heartbeat=QuietHeartbeat)
    fleet.model.answer(WRITE, hanging())
    run_id = await fleet.dispatch(**EMPTY)
    await fleet.model.until(fleet.model.waits)
    await lost.take_no_more()
    await fleet.lose(run_id)

    elsewhere = VcsClient(await start_vcs(tmp_path / "other vcs"), VCS_TOKEN)
    await start_agent(vcs=elsewhere)
    fleet.model.answer(DONE)
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.COMPLETED, RunState.FAILED)

    assert (run["state"], run["outcome"], run["attempt"], run["turns"]) == ("completed", "stored", 2, 2)
    assert (run["repository"], run["base_sha"], run["base_branch"]) == (None, ROOT_SHA, None)
    changeset = await fleet.changeset(run_id)
    assert (changeset["state"], changeset["repository"], changeset["insertions"]) == ("stored", "", 2)
    assert [(each["path"], each["change"]) for each in changeset["files"]] == [
        ("docs/notes.md", "added"),
        ("main.py", "added"),
    ]
    assert applied(await fleet.domain.reading.diff(fleet.domain.client, run_id), tmp_path / "applied") == {
        "main.py": "print('hello')\n",
        "docs/notes.md": "# Notes\n",
    }
    changed = await told(fleet, run_id, EventKind.FILE_CHANGED)
    assert sorted((each["path"], each["change"]) for each in changed) == [
        ("docs/notes.md", "added"),
        ("main.py", "added"),
    ]


async def test_it_is_told_of_its_folder_and_cannot_be_published(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(WRITE, DONE)
    run = await work(fleet, **EMPTY)
    assert prompt("empty_folder") in system(fleet.model.requests[0])
    changeset = await fleet.changeset(run["id"])
    for publish in (None, Publish.BRANCH):
        with pytest.raises(NotPublishableError, match="no repository"):
            await fleet.domain.publishing.request(fleet.domain.client, changeset["id"], publish)
    assert (await fleet.changeset(run["id"]))["state"] == "stored"
    assert (await fleet.domain.reading.changeset(fleet.domain.client, changeset["id"])).repository == ""
    await fleet.until_released(run["id"])

    fleet.model.answer(DONE)
    idle = await work(fleet, **EMPTY)
    assert (idle["state"], idle["outcome"]) == ("completed", "no_changes")
    assert await fleet.changesets(idle["id"]) == []


async def test_many_work_side_by_side_whatever_a_repository_may_hold(fleet: Fleet, start_agent: StartAgent):
    await fleet.domain.execute("INSERT INTO limits (scope, name, slots) VALUES ('repository', '', 1)")
    await start_agent()
    fleet.model.ever_after = hanging()
    run_ids = [await fleet.dispatch(**EMPTY) for _ in range(3)]

    async def all_work() -> bool:
        return all(fleet.worktrees(run_id) == ["1"] for run_id in run_ids)

    await fleet.until(all_work)
    assert [(await fleet.run(run_id))["held_since"] for run_id in run_ids] == [None] * 3
    fleet.model.go_on.set()


async def test_a_retry_from_its_checkpoint_has_its_files_and_runs_its_tests(fleet: Fleet, start_agent: StartAgent):
    await start_agent(sandbox=await confined())
    fleet.model.answer(WRITE, whole(call(3, "task_complete", summary="Too hard.", status="blocked")), DONE)
    run = await work(fleet, testCommand="touch left-behind && grep hello main.py", **EMPTY)
    assert run["state"] == "failed"
    (order,) = await fleet.order(await fleet.domain.retry(run["job_id"], resume=True))
    again = await fleet.until_run(order.run_id, RunState.COMPLETED, RunState.FAILED)
    assert (again["state"], again["outcome"]) == ("completed", "stored")
    changeset = await fleet.changeset(order.run_id)
    assert changeset["verified"]
    assert [each["path"] for each in changeset["files"]] == ["docs/notes.md", "main.py"]
