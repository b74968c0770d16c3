"""Nothing outside the root is ever read or changed, whatever is asked for and whoever moves things meanwhile."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.agent.tools import Toolbox, ToolCall, Workspace
from tests.unit.agent.conftest import SECRET, Use, names_in

LINKS = ("link", "sub/up", "sub/file", "chain")
WORDS = ["..", ".", "", "sub", "a.txt", "new", ".git", ".GIT ", ".g\u200cit", "git~1", "secret.txt", "outside", *LINKS]
NAMES = st.one_of(st.sampled_from(WORDS), st.text(max_size=4))
PATHS = st.builds(lambda start, names: start + "/".join(names), st.sampled_from(["", "/", "./", "//"]), st.lists(NAMES))


def planted() -> Path:
    """A folder with a secret, a root beside it that is full of links to it, and Git metadata in the root."""
    base = Path(tempfile.mkdtemp())
    (base / "outside").mkdir()
    (base / "outside/secret.txt").write_text(SECRET)
    root = base / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("inside\n")
    for git in (root / ".git", root / "sub/.GIT"):
        git.mkdir()
        (git / "config").write_text(SECRET)
    (root / "link").symlink_to("../outside")
    (root / "chain").symlink_to("link")
    (root / "sub/up").symlink_to("../..")
    (root / "sub/file").symlink_to(base / "outside/secret.txt")
    return base


def closed_state(base: Path) -> dict[str, bytes]:
    """Every file that no tool may touch, with its content."""
    closed = [base / "outside", base / "root/.git", base / "root/sub/.GIT"]
    files = [path for folder in closed for path in folder.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files} | {"": str(names_in(base)).encode()}


def everything(path: str, other: str) -> list[ToolCall]:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("read_file", {"path": path}),
        ("list_files", {"directory": path}),
        ("search_code", {"pattern": "secret", "path": path, "include_ignored": True}),
        ("edit_file", {"path": path, "old_string": "secret", "new_string": "broken"}),
        ("write_file", {"path": path, "content": "broken"}),
        ("move_file", {"old_path": path, "new_path": other}),
        ("move_file", {"old_path": "a.txt", "new_path": path}),
        ("delete_file", {"path": other}),
    ]
    return [ToolCall(str(number), name, arguments) for number, (name, arguments) in enumerate(calls)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=PATHS, other=PATHS, absolute=st.booleans())
async def test_no_path_reaches_outside(path: str, other: str, absolute: bool) -> None:
    base = planted()
    try:
        before = closed_state(base)
        asked = f"{base}/root/{path}" if absolute else path
        results = await Toolbox(Workspace(base / "root")).run(everything(asked, other))
        assert closed_state(base) == before
        assert not any(SECRET in result.content for result in results)
    finally:
        shutil.rmtree(base)


@pytest.mark.parametrize(
    "path", ["link", "link/secret.txt", "chain/secret.txt", "sub/up/outside/secret.txt", "sub/file", ".git/config"]
)
async def test_every_tool_refuses_links_and_git_metadata(path: str) -> None:
    base = planted()
    before = closed_state(base)
    calls = everything(path, path)[:-1]
    results = await Toolbox(Workspace(base / "root")).run(calls)
    assert all(result.is_error for result in results)
    assert closed_state(base) == before
    shutil.rmtree(base)


async def test_deleting_a_link_removes_the_link_alone(root: Path, outside: Path, use: Use) -> None:
    (root / "link").symlink_to(outside)
    assert not (await use("delete_file", path="link")).is_error
    assert names_in(root) == []
    assert (outside / "secret.txt").read_text() == SECRET


async def test_a_directory_swapped_for_a_link_between_calls(root: Path, outside: Path, use: Use) -> None:
    (root / "sub").mkdir()
    (root / "sub/secret.txt").write_text("inside\n")
    assert not (await use("read_file", path="sub/secret.txt")).is_error
    shutil.rmtree(root / "sub")
    (root / "sub").symlink_to(outside)
    for name, arguments in (
        ("read_file", {"path": "sub/secret.txt"}),
        ("list_files", {"directory": "sub"}),
        ("list_files", {"directory": "sub", "recursive": True}),
        ("search_code", {"pattern": "secret", "path": "sub"}),
        ("write_file", {"path": "sub/secret.txt", "content": "inside\n"}),
        ("edit_file", {"path": "sub/secret.txt", "old_string": "secret", "new_string": "x"}),
        ("delete_file", {"path": "sub/secret.txt"}),
        ("move_file", {"old_path": "sub/secret.txt", "new_path": "taken"}),
    ):
        result = await use(name, **arguments)
        assert result.is_error, name
        assert "link" in result.content
    assert (outside / "secret.txt").read_text() == SECRET
    assert names_in(root) == ["sub"]


def swapping(trigger: str, swap: Callable[[], None], real: Callable[..., int]) -> Callable[..., int]:
    """``os.open`` that calls ``swap`` once, just before it opens ``trigger``."""
    pending = [swap]

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        if path == trigger and pending:
            pending.pop()()
        return real(path, *arguments, **options)

    return opened


@pytest.mark.parametrize("tool", ["read_file", "write_file"])
@pytest.mark.parametrize("trigger", ["sub", "secret.txt"])
async def test_a_swap_within_a_call_wins_nothing(
    root: Path, outside: Path, use: Use, monkeypatch: pytest.MonkeyPatch, tool: str, trigger: str
) -> None:
    (root / "sub").mkdir()
    (root / "sub/secret.txt").write_text("inside\n")

    def swap() -> None:
        if trigger == "sub":
            (root / "sub").rename(root / "was")
            (root / "sub").symlink_to(outside)
        else:
            (root / "sub/secret.txt").unlink()
            (root / "sub/secret.txt").symlink_to(outside / "secret.txt")

    monkeypatch.setattr(os, "open", swapping(trigger, swap, os.open))
    arguments = {"path": "sub/secret.txt"} | ({"content": "x"} if tool == "write_file" else {})
    result = await use(tool, **arguments)
    assert result.is_error
    assert "link" in result.content
    assert (outside / "secret.txt").read_text() == SECRET


async def test_a_directory_moved_away_within_a_call_does_not_redirect_the_write(
    root: Path, outside: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "sub").mkdir()

    def swap() -> None:
        (root / "sub").rename(root / "was")
        (root / "sub").symlink_to(outside)

    monkeypatch.setattr(os, "open", swapping("new.txt", swap, os.open))
    await use("write_file", path="sub/new.txt", content="x")
    assert names_in(outside) == ["secret.txt"]


async def test_the_root_itself_may_be_reached_through_a_link(tmp_path: Path, root: Path) -> None:
    (root / "a.txt").write_text("inside\n")
    (tmp_path / "alias").symlink_to(root)
    toolbox = Toolbox(Workspace(tmp_path / "alias"))
    paths = ["a.txt", f"{root}/a.txt", f"{tmp_path}/alias/a.txt"]
    results = await toolbox.run([ToolCall(path, "read_file", {"path": path}) for path in paths])
    assert [result.is_error for result in results] == [False, False, False]
