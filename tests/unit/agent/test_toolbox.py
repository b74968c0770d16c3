import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.agent.tools import Completion, Toolbox, ToolCall, ToolResult, Workspace
from services.agent.tools.calls import Outcome, ToolError, ToolSpec
from services.agent.tools.files import ReadFile, WriteFile
from services.agent.tools.showing import MAX_OUTPUT_CHARACTERS, Clip, clipped, visible
from services.agent.tools.toolbox import SIDE_BY_SIDE
from tests.unit.agent.conftest import Use

CODE = [
    "delete_file",
    "edit_file",
    "list_files",
    "move_file",
    "read_file",
    "search_code",
    "task_complete",
    "write_file",
]
TASK = ["ask_user", "list_files", "read_file", "search_code", "task_complete"]
WRITERS = {"delete_file", "edit_file", "move_file", "write_file"}


def test_the_tools_of_each_kind_in_order(workspace: Workspace) -> None:
    code, task = Toolbox(workspace), Toolbox(workspace, kind="task")
    assert [spec.name for spec in code.specs] == CODE
    assert [spec.name for spec in task.specs] == TASK
    assert {spec.name for spec in code.specs if spec.writes} == WRITERS
    assert not any(spec.writes for spec in task.specs)
    assert code.specs == Toolbox(workspace).specs, "the prompt cache needs the same bytes each time"


def test_schemas_are_closed_and_say_nothing_twice(toolbox: Toolbox) -> None:
    for spec in toolbox.specs:
        assert spec.input_schema["additionalProperties"] is False
        assert set(spec.input_schema["required"]) <= set(spec.input_schema["properties"])
        assert '"title"' not in json.dumps(spec.input_schema)
        assert "null" not in json.dumps(spec.input_schema)


async def test_completion_and_question(workspace: Workspace) -> None:
    toolbox = Toolbox(workspace, kind="task")
    assert (toolbox.completion, toolbox.question) == (None, None)
    await toolbox.run([ToolCall("1", "ask_user", {"question": "Which one?"})])
    await toolbox.run([ToolCall("2", "task_complete", {"summary": "All done.", "status": "done"})])
    assert toolbox.question == "Which one?"
    assert toolbox.completion == Completion("All done.", "done")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("read_file", {}, ["path: Field required", "read_file takes {path: string"]),
        ("read_file", {"path": 1}, ["path: Input should be a valid string"]),
        ("read_file", {"path": "a", "start_line": "1"}, ["start_line: Input should be a valid integer"]),
        ("read_file", {"path": "a", "start_line": 0}, ["greater than or equal to 1"]),
        ("read_file", {"path": "a", "file": "b"}, ["file: Extra inputs", "and nothing else"]),
        ("read_file", '{"path": ', ["not valid JSON", "read_file takes"]),
        ("read_file", ["a"], ["the arguments: "]),
        ("read_file", None, ["the arguments: "]),
        ("task_complete", {"summary": "x", "status": "fine"}, ['"done" | "blocked"']),
        ("run_shell", {}, ["no tool 'run_shell'", "delete_file, edit_file"]),
        ("ask_user", {"question": "x"}, ["no tool 'ask_user'"]),
    ],
)
async def test_what_does_not_fit_is_answered_with_what_does(
    toolbox: Toolbox, name: str, arguments: Any, words: list[str]
) -> None:
    (result,) = await toolbox.run([ToolCall("7", name, arguments)])
    assert (result.tool_use_id, result.is_error, result.malformed) == ("7", True, True)
    assert [word for word in words if word not in result.content] == []


async def test_a_tool_that_was_offered_and_is_withdrawn_is_not_malformed(workspace: Workspace) -> None:
    offered = [ToolSpec(name, "", {}, writes=False) for name in ("read_file", "run_command")]
    toolbox = Toolbox(workspace, offered=offered)
    calls = [ToolCall("1", "run_command", {"command": "x"})]
    (result,) = await toolbox.run(calls)
    assert (result.is_error, result.malformed) == (True, False)
    assert result.content.startswith("run_command cannot be used any more")
    assert not toolbox.only_reads(calls)
    (broken,) = await toolbox.run(calls, after_a_break=True)
    assert broken.content.startswith("Interrupted: "), "it may have been made while it could be"
    (unknown,) = await toolbox.run([ToolCall("2", "run_shell", {})])
    assert "run_command" not in unknown.content


class Talkative:
    """A tool that answers with as much as it was told to, and says whether that is an error."""

    spec = ToolSpec("talk", "", {}, writes=False)

    def subject(self, arguments: Any) -> str:
        return str(arguments)

    async def run(self, arguments: Any) -> Outcome:
        if arguments["fails"]:
            raise ToolError(arguments["text"])
        return Outcome(arguments["text"])


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("text", "middle"),
    [
        ("é" * 100_000 + "needle" + "y" * 100_000, "needle"),
        ("\x00" * 20_000 + "n\ud800" + "\x00" * 20_000, "n\\ud800"),
    ],
    ids=["one long line", "many characters that are spelled out"],
)
async def test_whatever_is_too_long_is_kept_and_can_be_read(
    workspace: Workspace, text: str, middle: str, fails: bool
) -> None:
    toolbox = Toolbox(workspace, extra=[Talkative()])
    (told,) = await toolbox.run([ToolCall("1", "talk", {"text": text, "fails": fails})])
    assert told.is_error is fails
    assert len(told.content) <= MAX_OUTPUT_CHARACTERS + 300
    assert told.content.endswith("path @outputs/1.txt, by ranges of lines.]")
    assert middle not in told.content
    lines = text.encode(errors="backslashreplace").decode().count(middle)
    read = ""
    for first in range(1, 121, 3):
        call = ToolCall("2", "read_file", {"path": "@outputs/1.txt", "start_line": first, "end_line": first + 2})
        (part,) = await toolbox.run([call])
        read += part.content
    assert read.count(middle) == lines == 1
    assert "left out" not in read


async def test_a_refusal_is_not_malformed(use: Use) -> None:
    result = await use("read_file", path="../x")
    assert (result.is_error, result.malformed) == (True, False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
FIELDS = [
    "path",
    "content",
    "old_string",
    "new_string",
    "pattern",
    "glob",
    "limit",
    "context",
    "directory",
    "recursive",
]
FIELDS += ["old_path", "new_path", "replace_all", "start_line", "end_line", "summary", "status", "question"]
VALUES = JSON | st.sampled_from(["a.txt", ".", "*", "new", 1, 2, True, "done"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted({*CODE, *TASK})) | st.text(st.characters(), max_size=8),
            st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4) | JSON,
        ),
        max_size=4,
    ),
    st.sampled_from(["code", "task"]),
)
async def test_no_call_ever_raises(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, Any]], kind: Any
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "a.txt").write_text("text\n")
    toolbox = Toolbox(Workspace(root), kind=kind)
    made = [ToolCall(str(number), name, arguments) for number, (name, arguments) in enumerate(calls)]
    results = await toolbox.run(made)
    assert [result.tool_use_id for result in results] == [call.id for call in made]
    for call, result in zip(made, results, strict=True):
        json.dumps(result.content).encode()
        result.content.encode()
        assert result.content
        subject = toolbox.subject(call)
        assert len(subject) <= 120
        assert subject.isprintable() or visible(subject) == subject


@pytest.mark.parametrize(
    ("name", "arguments", "subject"),
    [
        ("read_file", {"path": "src/a.py"}, "src/a.py"),
        ("move_file", {"old_path": "a", "new_path": "b"}, "a → b"),
        ("search_code", {"pattern": "x\ny", "path": "src"}, "x\\x0ay → src"),
        ("read_file", {"path": "\x1b[2J"}, "\\x1b[2J"),
        ("read_file", {"path": "x" * 500}, "x" * 119 + "…"),
        ("list_files", {}, ""),
        ("read_file", {"path": ["a"]}, ""),
        ("read_file", "not json", ""),
        ("no_such", {}, "no_such"),
    ],
)
def test_subjects_are_for_people(toolbox: Toolbox, name: str, arguments: Any, subject: str) -> None:
    assert toolbox.subject(ToolCall("1", name, arguments)) == subject


async def test_results_come_in_call_order_and_writes_take_effect_in_between(toolbox: Toolbox, root: Path) -> None:
    def read() -> ToolCall:
        return ToolCall("r", "read_file", {"path": "a.txt"})

    def write(text: str) -> ToolCall:
        return ToolCall("w", "write_file", {"path": "a.txt", "content": text})

    (root / "a.txt").write_text("zero\n")
    results = await toolbox.run([read(), read(), write("one\n"), read(), write("two\n"), write("three\n"), read()])
    first_lines = [result.content.splitlines()[0] for result in results if result.tool_use_id == "r"]
    assert first_lines == ["1\tzero", "1\tzero", "1\tone", "1\tthree"]
    assert [result.tool_use_id for result in results] == list("rrwrwwr")


class Watched:
    """Counts how many calls run at the same time; each ends when ``enough`` run or nothing more can start."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def execute(self, _: object) -> Outcome:
        self.now += 1
        self.most = max(self.most, self.now)
        for _turn in range(20):  # lets every other call that may start do so
            await asyncio.sleep(0)
        self.now -= 1
        return Outcome("seen")


@pytest.mark.parametrize(("tool", "most"), [(ReadFile, SIDE_BY_SIDE), (WriteFile, 1)])
async def test_readers_run_side_by_side_and_writers_alone(
    toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, tool: Any, most: int
) -> None:
    watched = Watched()
    monkeypatch.setattr(tool, "execute", lambda _, arguments: watched.execute(arguments))
    arguments = {"path": "a"} | ({"content": "x"} if tool is WriteFile else {})
    calls = [ToolCall(str(number), tool.name, arguments) for number in range(20)]
    results = await toolbox.run(calls)
    assert results == [ToolResult(call.id, "seen") for call in calls]
    assert watched.most == most


async def test_a_bug_is_not_hidden(toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Outcome:
        raise ZeroDivisionError

    monkeypatch.setattr(WriteFile, "execute", broken)
    with pytest.raises(ZeroDivisionError):
        await toolbox.run([ToolCall("1", "write_file", {"path": "a", "content": "x"})])


@given(st.lists(st.text(max_size=20_000), max_size=8), st.integers(1, 40_000))
def test_a_clip_keeps_head_and_tail_and_counts_the_rest(pieces: list[str], repeat: int) -> None:
    pieces = [*pieces, "ab" * repeat]
    clip = Clip()
    for piece in pieces:
        clip.add(piece)
    whole = "".join(pieces)
    assert clip.text() == clipped(whole)
    if len(whole) <= 30_000:
        assert clip.text() == whole
    else:
        note = f"\n[… {len(whole) - 30_000:,} characters left out …]\n"
        assert clip.text() == whole[:20_000] + note + whole[-10_000:]
