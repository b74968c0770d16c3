"""No input makes a tool fail, reach outside, say too much or take too much; `make fuzz` tries many more of them."""

import asyncio
import itertools
import time
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.agent.model.reply import Assembly
from services.agent.tools import Toolbox, ToolCall, Workspace
from services.agent.tools.toolbox import Kind
from services.agent.transcript import Transcript
from tests.fuzz.edits import tree_of
from tests.fuzz.hostile import SECRET, planted, swapping
from tests.fuzz.inputs import TRAPS, about, nested
from tests.fuzz.tool_calls import Scene, play, scenes
from tests.unit.agent.conftest import names_in
from tests.unit.agent.test_reply import begin, end, tool

ROUNDS = 400
SEARCHES = 200
DEADLINE_SECONDS = 60
MAX_CALL_BYTES = 48 * 1024**2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scenes)
async def test_any_calls_come_to_results_and_nothing_else(scene: Scene) -> None:
    await play(scene)


@pytest.mark.parametrize("bad", ["a\0", "\ud800"])
@pytest.mark.parametrize("kind", ["code", "task"])
async def test_no_field_takes_text_that_cannot_be_stored(root: Path, kind: Kind, bad: str) -> None:
    toolbox = Toolbox(Workspace(root), kind=kind)
    for spec in toolbox.specs:
        for field, rules in spec.input_schema["properties"].items():
            if rules["type"] == "string":
                (result,) = await toolbox.run([ToolCall("1", spec.name, {field: bad})])
                assert result.malformed
                assert f"{field}: " in result.content, spec.name


@pytest.mark.parametrize("path", TRAPS, ids=range(len(TRAPS)))
async def test_no_tool_falls_for_a_trap(path: str) -> None:
    await play(Scene("code", None, tuple(about(path))))


def carried(text: str) -> Any:
    """The input of a tool call from its text in the stream to the toolbox, by way of what is stored."""
    assembly = Assembly(lambda _: None)
    for event in (begin(), *tool(text), *end("tool_use")):
        assembly.feed(event)
    transcript = Transcript([])
    transcript.append("assistant", assembly.reply().content)
    again = Transcript([])
    again.append("assistant", orjson.loads(transcript.bodies[0])["content"])
    (call,), (stored,) = transcript.open_calls(), again.open_calls()
    assert call == stored
    transcript.append("user", [])
    return call.input


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(st.characters(), max_size=40), st.text(alphabet='{}[]",:\\ud800e19-', max_size=40)))
def test_any_text_of_an_input_can_be_carried_and_stored(text: str) -> None:
    carried(text)


@pytest.mark.parametrize(
    "text",
    ['{"a": 1e999}', '{"a": ' + "9" * 5_000 + "}", '{"a": NaN}', '{"\\ud800": 1}', "[" * 2_000, '{"a": "\\u0000"}'],
)
def test_inputs_at_the_edge_of_json_can_be_carried_and_stored(text: str) -> None:
    carried(text)


@pytest.mark.parametrize("depth", [252, 256, 1_000])
def test_a_deep_input_can_be_carried_and_stored(depth: int) -> None:
    carried(orjson.dumps(nested(200, in_objects=True)).decode().replace("1", "[" * (depth - 200) + "]" * (depth - 200)))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read_file", {"path": "sparse", "start_line": 1, "end_line": 10**9}),
        ("read_file", {"path": "long", "start_line": 1, "end_line": 10**9}),
        ("search_code", {"path": "sparse", "pattern": "x"}),
        ("write_file", {"path": "new", "content": "x" * 4_000_000}),
        ("edit_file", {"path": "long", "old_string": "\n", "new_string": "x" * 1_000_000, "replace_all": True}),
        ("list_files", {"directory": "many", "recursive": True, "limit": 10_000}),
    ],
)
async def test_a_call_takes_bounded_memory(name: str, arguments: dict[str, Any]) -> None:
    with planted() as place:
        (place.root / "long").write_bytes(b"\n" * 100_000)
        (place.root / "many").mkdir()
        for number in range(1_000):
            (place.root / f"many/{number:0200}").touch()
        toolbox = Toolbox(Workspace(place.root))
        await toolbox.run([ToolCall("1", "read_file", {"path": "long", "start_line": 1, "end_line": 2})])
        tracemalloc.start()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await toolbox.run([ToolCall("2", name, arguments)])
            assert tracemalloc.get_traced_memory()[1] < MAX_CALL_BYTES
        finally:
            tracemalloc.stop()


@pytest.fixture
def swapped(root: Path, outside: Path) -> Path:
    """A folder of the workspace and a link out of it, which are to change places; both hold the same names."""
    for name in ("sub", "sub/in"):
        (root / name).mkdir()
        (root / name / "secret.txt").write_text("inside\n")
    (outside / "in").mkdir()
    (outside / "in/secret.txt").write_text(SECRET)
    (root / "parked").symlink_to(outside)
    return root


RACES: list[tuple[str, dict[str, Any]]] = [
    ("read_file", {"path": "sub/secret.txt"}),
    ("read_file", {"path": "sub/in/secret.txt"}),
    ("edit_file", {"path": "sub/secret.txt", "old_string": "s", "new_string": "ss"}),
    ("edit_file", {"path": "sub/in/secret.txt", "old_string": "the ", "new_string": "no "}),
    ("write_file", {"path": "sub/in/secret.txt", "content": "written\n"}),
    ("write_file", {"path": "sub/in/new.txt", "content": "new\n"}),
    ("move_file", {"old_path": "sub/in/new.txt", "new_path": "sub/deeper/new.txt"}),
    ("move_file", {"old_path": "sub/in/secret.txt", "new_path": "stolen.txt"}),
    ("move_file", {"old_path": "stolen.txt", "new_path": "sub/in/secret.txt"}),
    ("delete_file", {"path": "sub/deeper/new.txt"}),
    ("list_files", {"directory": "sub"}),
    ("search_code", {"path": "sub/secret.txt", "pattern": "secret"}),
]


async def test_a_folder_swapped_for_a_link_all_the_time_wins_nothing(swapped: Path, outside: Path) -> None:
    toolbox = Toolbox(Workspace(swapped))
    refused = done = 0
    (outside / "only-outside").touch()
    deadline = time.monotonic() + DEADLINE_SECONDS
    with swapping(swapped / "sub", swapped / "parked"):
        for number in itertools.count():
            # On a busy machine the one who swaps may hardly get a turn, and then all calls come to the same.
            if number >= ROUNDS and ((refused and done) or time.monotonic() >= deadline):
                break
            name, arguments = RACES[number % len(RACES)]
            (result,) = await toolbox.run([ToolCall("1", name, arguments)])
            assert SECRET not in result.content
            assert "only-outside" not in result.content
            refused += "link" in result.content
            done += not result.is_error
    assert refused > 0, "else nothing was swapped, and this proves nothing"
    assert done > 0
    assert names_in(outside) == ["in", "only-outside", "secret.txt"]
    assert names_in(outside / "in") == ["secret.txt"]
    for path in (outside / "secret.txt", outside / "in/secret.txt"):
        assert path.read_text() == SECRET
    assert not any(SECRET in file.content.decode() for file in tree_of(swapped).values())
