"""Whole runs over repositories made to attack, with a model that falls for all of it: its edits alone come out."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from quarterdeck.cli.console import print_text
from quarterdeck.cli.lines import line
from quarterdeck.cli.views import JsonView
from quarterdeck.demo.git import commit_all
from quarterdeck.sse import Event
from services.contracts.words import RunState
from services.jobs.eventlog import LoggedEvent
from tests.fuzz.hostile import DECOYS, ESCAPE_NAME, NEWLINE_NAME, SECRET
from tests.fuzz.repository import LINKS, NOT_UNICODE, TEXTS, make_hostile, make_with_metadata_inside, named_changes
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import Json, call, hanging, said, whole

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
OBEYED_BYTES = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
DONE = whole(call(1, "task_complete", summary="Done.", status="done"))
CLOSED = [".git", ".git/config", ".git/hooks/pre-commit", "../outside/secret.txt", "/etc/passwd", "/proc/self/environ"]
CHANGES = {
    ("D", ESCAPE_NAME): None,
    ("D", NEWLINE_NAME): None,
    ("D", "src/old.py"): None,
    ("A", "src/new.py"): b"pass\n",
    ("A", "added/\u202eodd.txt"): b"added \x1b[2J\n",
    ("M", "case.txt"): b"changed\n",
    ("M", "src/app.py"): b"print('b')\n",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hostile(tmp_path_factory.mktemp("hostile"), "hostile")


@pytest.fixture
def outside(fleet: Fleet) -> Path:
    """Where the repository's links lead from a worktree."""
    folder = fleet.vcs_root / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    return folder


async def ordered(fleet: Fleet, repository: Path) -> UUID:
    """A run on ``repository`` whose changeset is stored and published nowhere; its id."""
    (order,) = await fleet.order(await fleet.submit(repositories=[repository], publish="none"))
    return order.run_id


def looks() -> list[Json]:
    paths = [os.fsdecode(path) for path in TEXTS if path != NOT_UNICODE]
    return [
        call(0, "list_files"),
        call(0, "list_files", directory="many"),
        call(0, "list_files", recursive=True, limit=10_000),
        call(0, "search_code", pattern="inside|secret|root:", include_ignored=True),
        call(0, "search_code", pattern="x", path="huge.img"),
        call(0, "read_file", path="huge.img", start_line=1, end_line=9),
        *(call(0, "read_file", path=path) for path in [*paths, *LINKS, *CLOSED, "noise.bin", "huge.img", "many"]),
    ]


def attacks() -> list[Json]:
    paths = [*CLOSED, "secret/x", "out/x", "a\nb", "a\x1bb"]
    return [
        *(call(0, "write_file", path=path, content="pwned\n") for path in paths),
        *(call(0, "delete_file", path=path) for path in [*CLOSED, "many", "src"]),
        *(call(0, "move_file", old_path="src/app.py", new_path=path) for path in CLOSED),
        call(0, "run_command", command="touch pwned"),
        call(0, "Bash", command="touch pwned"),
        call(0, "\x1b[2J", path="a"),
    ]


def edits() -> list[Json]:
    return [
        call(0, "edit_file", path="src/app.py", old_string="a", new_string="b"),
        call(0, "delete_file", path=ESCAPE_NAME),
        call(0, "delete_file", path=NEWLINE_NAME),
        call(0, "move_file", old_path="src/old.py", new_path="src/new.py"),
        call(0, "edit_file", path="case.txt", old_string="inside", new_string="changed"),
        call(0, "write_file", path="added/\u202eodd.txt", content="added \x1b[2J\n"),
    ]


def numbered(turn: int, blocks: list[Json]) -> list[Json]:
    return [{**block, "id": f"toolu_{turn}_{place}"} for place, block in enumerate(blocks)]


def state_of(*folders: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of all files beneath ``folders`` that say what Git does, or are none of its business."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and "objects" not in path.parts]
    return {str(path): (path.lstat().st_mode, path.read_bytes()) for path in files}


def traces(folder: Path) -> list[Path]:
    """What was run although it should not have been left these."""
    return list(folder.rglob("pwned"))


def results_of(request: Json) -> list[Json]:
    """The tool results that the newest message of ``request`` brings."""
    return [block for block in request["messages"][-1]["content"] if block["type"] == "tool_result"]


def as_watched(event: LoggedEvent) -> Event:
    return Event(
        id=str(event.number),
        kind=event.kind.value,
        job_id=str(event.job_id),
        run_id=str(event.run_id or ""),
        number=event.number,
        attempt=event.attempt,
        time=event.created_at,
        payload=event.data,
    )


async def test_nothing_but_the_edits_comes_out_of_a_repository_that_attacks(
    fleet: Fleet, start_agent: StartAgent, hostile: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await start_agent()
    fleet.model.answer(hanging(said("\x1b[2J Looking."), *numbered(1, looks())))
    fleet.model.answer(whole(*numbered(2, attacks())), whole(*numbered(3, edits())))
    fleet.model.answer(whole(call(9, "task_complete", summary="Done \x1b]0;owned\x07.", status="done")))
    run_id = await ordered(fleet, hostile)
    await fleet.model.until(fleet.model.waits)
    (attempt,) = fleet.worktrees(run_id)
    worktree = fleet.vcs_root / "worktrees" / str(run_id) / attempt
    assert (worktree / "src/app.py").is_file()
    assert [name for name in LINKS if (worktree / name).is_symlink()] == []
    kept = [outside, *(path for path in fleet.vcs_root.iterdir() if path.name not in {"worktrees", "trash"})]
    before = state_of(*kept)
    fleet.model.go_on.set()

    run = await fleet.until_run(run_id, RunState.COMPLETED, RunState.FAILED)
    assert (run["state"], run["outcome"], run["turns"]) == ("completed", "stored", 4)
    assert named_changes(hostile, (await fleet.changeset(run_id))["patch"]) == CHANGES

    _, looked, attacked, edited = fleet.model.requests
    told = "".join(result["content"] for request in (looked, attacked, edited) for result in results_of(request))
    assert SECRET not in told
    assert "root:x" not in told
    assert not OBEYED.search(told)
    assert all(result.get("is_error") for result in results_of(attacked))
    # Of the files that it had read, in the first turn.
    assert not any(result.get("is_error") for result in results_of(edited))
    await fleet.until_released(run_id)
    assert traces(fleet.vcs_root.parent) == []
    after = state_of(*kept)
    assert {path: state for path, state in before.items() if path in after and after[path] != state} == {}
    assert after.keys() <= before.keys(), "nothing new was left behind"

    events = await fleet.domain.events(await fleet.job_of(run_id))
    for event in events:
        assert not OBEYED_BYTES.search(event.encoded())
        print_text(line(as_watched(event), hostile.name) or "")
        JsonView().show(as_watched(event))
    print_text(run["summary"])
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert not OBEYED.search(shown)


async def test_what_a_repository_says_of_settings_changes_nothing(
    fleet: Fleet, start_agent: StartAgent, tmp_path: Path
) -> None:
    """What is asked of the model is the same, byte for byte, as over a repository that says nothing."""
    files = tmp_path / "files of decoys"
    shutil.copytree(tmp_path / "files of origin", files)
    for name, text in DECOYS.items():
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_text(text)
    commit_all(files, decoys := tmp_path / "decoys.git", "Begin")
    await start_agent()
    fleet.model.answer(DONE, DONE)
    for repository in (fleet.repository, decoys):
        await fleet.until_run(await ordered(fleet, repository), RunState.COMPLETED, RunState.FAILED)
    plain, with_decoys = fleet.model.requests
    assert orjson.dumps(plain) == orjson.dumps(with_decoys)


async def test_metadata_in_a_tree_is_refused_before_an_agent_sees_it(
    fleet: Fleet, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent()
    trap = make_with_metadata_inside(tmp_path, "trap")
    run = await fleet.until_run(await ordered(fleet, trap), RunState.FAILED, RunState.COMPLETED)
    assert (run["state"], run["exit_reason"]) == ("failed", "clone_failed")
    assert fleet.model.requests == []
    assert traces(tmp_path) == []
