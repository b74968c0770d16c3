import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from services.agent.sandbox import Ended, Limits, Sandbox, SandboxUnavailableError
from services.agent.tools import Toolbox, ToolCall, ToolResult, Workspace
from services.agent.tools.calls import ToolError
from services.agent.tools.commands import RunCommand
from services.agent.tools.outputs import MAX_LINE_CHARACTERS, MAX_OUTPUT_BYTES, MAX_RUN_BYTES, Outputs


class Scripted:
    """Stands in for the sandbox: says what a test wants, and remembers what was asked."""

    def __init__(self) -> None:
        self.ended = Ended(0, timed_out=False, output="fine\n", whole=None, duration=timedelta(seconds=1.25))
        self.error: SandboxUnavailableError | None = None
        self.argv: Sequence[str] | None = None
        self.limits = Limits()

    async def run(self, argv: Sequence[str], *, worktree: Path, limits: Limits, network: bool) -> Ended:
        self.argv, self.limits = argv, limits
        if self.error:
            raise self.error
        return self.ended


@pytest.fixture
def sandbox() -> Scripted:
    return Scripted()


def tool(sandbox: Scripted, allowed: Sequence[str] | None = None, outputs: Outputs | None = None) -> RunCommand:
    return RunCommand(
        cast("Sandbox", sandbox), Path("/w"), allowed=allowed, network=False, outputs=outputs or Outputs()
    )


async def use(sandbox: Scripted, root: Path, allowed: Sequence[str] | None, **arguments: Any) -> ToolResult:
    toolbox = Toolbox(Workspace(root), extra=[tool(sandbox, allowed)])
    (result,) = await toolbox.run([ToolCall("call", "run_command", arguments)])
    return result


async def test_without_a_list_a_shell_runs_it(sandbox: Scripted, root: Path) -> None:
    result = await use(sandbox, root, None, command="make && ls | wc -l", timeout_s=7)
    assert result.content == "Exit code 0 after 1.2 s.\nfine"
    assert sandbox.argv == ["/bin/sh", "-c", "make && ls | wc -l"]
    assert sandbox.limits.wall == timedelta(seconds=7)


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("npm test", ["npm", "test"]),
        ("  npm   test ", ["npm", "test"]),
        ("pytest", ["pytest"]),
        ("pytest -k 'a; b | $(c)' \"d > e\" f\\;g", ["pytest", "-k", "a; b | $(c)", "d > e", "f;g"]),
    ],
)
async def test_what_the_list_allows_runs_without_a_shell(
    sandbox: Scripted, root: Path, command: str, argv: list[str]
) -> None:
    assert not (await use(sandbox, root, ["npm test", "pytest *"], command=command)).is_error
    assert sandbox.argv == argv


@pytest.mark.parametrize(
    "command",
    [
        *("npm", "npm test --all", "npm  install", "pytester", "/tmp/pytest", "X=1 pytest", "'pytest x'", "env pytest"),
        *("pytest; id", "pytest & id", "pytest | sh", "pytest > x", "pytest < x", "pytest `id`", "pytest $(id)"),
        *("pytest\nid", "pytest\rid", "pytest \\\nid", 'pytest "$(id)"', 'pytest "`id`"', "pytest $HOME", "(pytest)"),
        *("pytest 'a' ; 'b'", "pytest \\\\; id", "pytest 'unclosed", "pytest \\", "''", " "),
    ],
)
async def test_what_the_list_does_not_allow_is_not_run(sandbox: Scripted, root: Path, command: str) -> None:
    result = await use(sandbox, root, ["npm test", "pytest *"], command=command)
    assert result.is_error
    assert "not run" in result.content or "empty" in result.content
    assert sandbox.argv is None


async def test_a_refusal_names_what_is_allowed(sandbox: Scripted, root: Path) -> None:
    refusal = await use(sandbox, root, ["npm test", "pytest *"], command="curl x")
    assert "'npm test', 'pytest *'" in refusal.content
    assert "No command is allowed" in (await use(sandbox, root, [], command="curl x")).content


@pytest.mark.parametrize("arguments", [{}, {"command": ""}, {"command": "a", "timeout_s": 1801}, {"command": "a\0"}])
async def test_arguments_that_do_not_fit(sandbox: Scripted, root: Path, arguments: Mapping[str, Any]) -> None:
    assert (await use(sandbox, root, None, **arguments)).malformed
    assert sandbox.argv is None


async def test_long_output_can_be_read_in_full(sandbox: Scripted, root: Path) -> None:
    sandbox.ended = Ended(
        1, timed_out=False, output="head […] tail", whole=b"one\n\x1b[2J\nthree\n", duration=timedelta()
    )
    outputs = Outputs()
    toolbox = Toolbox(Workspace(root), outputs=outputs, extra=[tool(sandbox, None, outputs)])
    read = {"path": "@outputs/1.txt", "start_line": 2}
    told, part = await toolbox.run([ToolCall("a", "run_command", {"command": "x"}), ToolCall("b", "read_file", read)])
    assert told.content.startswith("Exit code 1 ")
    assert "path @outputs/1.txt" in told.content
    assert part.content == "2\t\\x1b[2J\n3\tthree\n[lines 2-3 of 3]"
    assert outputs.take_new() == {"1.txt": b"one\n\x1b[2J\nthree\n"}
    assert outputs.take_new() == {}


async def test_a_command_that_was_stopped_or_killed_says_so(sandbox: Scripted, root: Path) -> None:
    sandbox.ended = Ended(143, timed_out=True, output="", whole=None, duration=timedelta(seconds=120))
    assert "it had not ended" in (await use(sandbox, root, None, command="x")).content
    sandbox.ended = Ended(137, timed_out=False, output="", whole=None, duration=timedelta(seconds=1))
    assert "2.0 GiB of memory" in (await use(sandbox, root, None, command="x")).content


async def test_where_there_is_no_sandbox_the_model_is_told(sandbox: Scripted, root: Path) -> None:
    sandbox.error = SandboxUnavailableError("set SANDBOX=none")
    result = await use(sandbox, root, None, command="x")
    assert result.is_error
    assert result.content == "The command was not run. set SANDBOX=none"


def test_its_spec_writes_has_effects_outside_and_names_the_list(sandbox: Scripted) -> None:
    spec = tool(sandbox, ["npm test"]).spec
    assert (spec.writes, spec.outside) == (True, True)
    assert "'npm test'" in spec.description
    assert "There is no network" in spec.description
    assert "/bin/sh" in tool(sandbox).spec.description


@pytest.mark.parametrize(
    ("content", "lengths"),
    [
        ("x" * 2_000, [2_000]),
        ("x" * 2_000 + "\n" + "y" * 1_999 + "\n", [2_000, 1_999, 0]),
        ("a\n" + "é" * 4_001 + "\n\nb", [1, 2_000, 2_000, 1, 0, 1]),
        ("é" * 1_500, [1_500]),
        ("", [0]),
    ],
)
def test_outputs_are_kept_in_lines_that_can_be_read(content: str, lengths: list[int]) -> None:
    outputs = Outputs()
    kept = outputs.read(outputs.keep(content.encode())).decode()
    assert [len(line) for line in kept.split("\n")] == lengths
    assert kept.replace("\n", "") == content.replace("\n", "")


@pytest.mark.parametrize("line", [b"\xff" * 1_200, b"\xc3\xa9" * 700 + b"\xff", b"x" * 1_999 + b"\xff"])
def test_what_is_no_text_is_kept_as_it_is_in_lines_that_can_be_read(line: bytes) -> None:
    outputs = Outputs()
    kept = outputs.read(outputs.keep(b"a\n" + line + b"\nb\n"))
    assert kept.replace(b"\n", b"") == b"a" + line + b"b"
    assert max(len(each.decode(errors="backslashreplace")) for each in kept.split(b"\n")) <= MAX_LINE_CHARACTERS


@pytest.mark.parametrize("content", [b"\n", b"short\n", b"x" * 2_001 + b"\n\n", b"\xff"])
def test_much_output_is_kept_in_a_moment(content: bytes) -> None:
    """While it is, an agent does nothing else for any of its runs."""
    outputs = Outputs()
    much = b"x" * 3_000 + content * (4 * MAX_OUTPUT_BYTES // len(content))
    started = time.process_time()
    outputs.keep(much)
    assert time.process_time() - started < 0.5


def test_outputs_go_on_where_a_checkpoint_stood_and_drop_the_oldest() -> None:
    outputs = Outputs({"2.txt": b"b", "10.txt": b"j"})
    assert outputs.read("@outputs/10.txt") == b"j"
    assert outputs.keep(b"x" * (MAX_OUTPUT_BYTES + 1)) == "@outputs/11.txt"
    assert MAX_OUTPUT_BYTES - 64 <= len(outputs.read("@outputs/11.txt")) <= MAX_OUTPUT_BYTES
    for _ in range(MAX_RUN_BYTES // MAX_OUTPUT_BYTES):
        outputs.keep(b"y" * MAX_OUTPUT_BYTES)
    with pytest.raises(ToolError, match="was dropped"):
        outputs.read("@outputs/2.txt")
    with pytest.raises(ToolError, match="no output"):
        outputs.read("@outputs/../secret")
    assert list(outputs.take_new())[-1] == "31.txt"
