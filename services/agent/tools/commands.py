"""The tool that runs commands in the sandbox: any, through a shell, or those of a list, without one."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from services.agent.sandbox import Ended, Limits, Sandbox, SandboxUnavailableError
from services.agent.tools.calls import Outcome, ToolError, ToolSpec
from services.agent.tools.inputs import Input, InputTool, Text
from services.agent.tools.outputs import Outputs

_MAX_COMMAND_CHARACTERS = 20_000
_MAX_TIMEOUT_SECONDS = 1_800
_KILLED = 137
_ANY_REST = "*"
_USUAL = Limits()
# What a shell would act on: everywhere, and between double quotes too.
_ACTS = set(";|&<>()`$\n\r")
_ACTS_QUOTED = set("`$")


class RunCommandInput(Input):
    command: Annotated[Text, Field(min_length=1, max_length=_MAX_COMMAND_CHARACTERS)]
    timeout_s: Annotated[int, Field(ge=1, le=_MAX_TIMEOUT_SECONDS)] | None = Field(
        default=None, description="Seconds after which it is stopped"
    )


class RunCommand(InputTool[RunCommandInput]):
    """``allowed``: None for any command; else each entry is a command's exact words, or, where it ends in " *", the
    words it begins with. ``limits``: of each command; their wall time is what ``timeout_s`` is where not given.
    """

    name = "run_command"
    description = (
        "Run a command in the workspace's root and get its exit code and output. It has no input and ends with "
        "everything it started; long output is kept for read_file."
    )
    writes = True
    outside = True
    subject_fields = ("command",)
    input_model = RunCommandInput

    def __init__(
        self,
        sandbox: Sandbox,
        worktree: Path,
        *,
        allowed: Sequence[str] | None,
        network: bool,
        limits: Limits = _USUAL,
        outputs: Outputs,
    ) -> None:
        self._sandbox = sandbox
        self._worktree = worktree
        self._allowed = None if allowed is None else [_Entry(entry) for entry in allowed]
        self._network = network
        self._limits = limits
        self._outputs = outputs

    @property
    def spec(self) -> ToolSpec:
        return replace(super().spec, description=f"{self.description} {self._surroundings()}")

    async def execute(self, arguments: RunCommandInput) -> Outcome:
        limits = self._limits
        if arguments.timeout_s is not None:
            limits = replace(limits, wall=timedelta(seconds=arguments.timeout_s))
        argv = self._argv(arguments.command)
        try:
            ended = await self._sandbox.run(argv, worktree=self._worktree, limits=limits, network=self._network)
        except SandboxUnavailableError as error:
            raise ToolError(f"The command was not run. {error}") from error
        return Outcome(self._told(ended, limits))

    def _surroundings(self) -> str:
        seconds = self._limits.wall.total_seconds()
        words = "" if self._network else " There is no network."
        if self._allowed is None:
            return f"/bin/sh runs it, for at most {seconds:.0f} s unless timeout_s says otherwise.{words}"
        usual = f"for at most {seconds:.0f} s unless timeout_s says otherwise"
        return f"It runs without a shell, {usual}.{words} {self._listed()}"

    def _listed(self) -> str:
        if not self._allowed:
            return "No command is allowed."
        return (
            f"Allowed: {', '.join(repr(entry.text) for entry in self._allowed)} (* stands for any further arguments)."
        )

    def _argv(self, command: str) -> list[str]:
        if not command.strip():
            raise ToolError("The command is empty: say what to run")
        if self._allowed is None:
            return ["/bin/sh", "-c", command]
        argv = _words(command)
        if not any(entry.allows(argv) for entry in self._allowed):
            raise ToolError(f"This command is not allowed, and was not run. {self._listed()}")
        return argv

    def _told(self, ended: Ended, limits: Limits) -> str:
        parts = [_first_line(ended, limits), ended.output.rstrip("\n") or "(no output)"]
        if ended.whole is not None:
            parts.append(self._outputs.kept(ended.whole))
        return "\n".join(parts)


class _Entry:
    """One of the commands that are allowed."""

    def __init__(self, text: str) -> None:
        self.text = text
        words = shlex.split(text)
        self._takes_more = words[-1:] == [_ANY_REST]
        self._words = words[:-1] if self._takes_more else words

    def allows(self, argv: Sequence[str]) -> bool:
        if self._takes_more:
            return list(argv[: len(self._words)]) == self._words
        return list(argv) == self._words


def _words(command: str) -> list[str]:
    """``command`` as a shell would split it. Raises ``ToolError`` where a shell would do more than that."""
    command = command.strip()
    if acting := _first_that_acts(command):
        raise ToolError(
            f"This command was not run: {acting!r} needs a shell, and the commands allowed here run without one. Send "
            "one command with its arguments, or put single quotes around what is meant literally"
        )
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ToolError(f"This command was not run: its quotes do not fit ({error})") from error


def _first_that_acts(command: str) -> str | None:
    """The first character that a shell would act on beyond splitting words, or None."""
    quote = ""
    characters = iter(command)
    for character in characters:
        if character == "\\" and quote != "'":
            if next(characters, "") == "\n":
                return "\n"
        elif quote:
            if character == quote:
                quote = ""
            elif quote == '"' and character in _ACTS_QUOTED:
                return character
        elif character in "'\"":
            quote = character
        elif character in _ACTS:
            return character
    return None


def _first_line(ended: Ended, limits: Limits) -> str:
    seconds = ended.duration.total_seconds()
    if ended.timed_out:
        return (
            f"Stopped after {seconds:.1f} s: it had not ended (exit code {ended.exit_code}). Run less at once, or give "
            f"a longer timeout_s (up to {_MAX_TIMEOUT_SECONDS}). Output until then:"
        )
    words = f"Exit code {ended.exit_code} after {seconds:.1f} s."
    if ended.exit_code == _KILLED:
        words += f" It was killed: perhaps it used more than its {limits.memory_bytes / 1024**3:.1f} GiB of memory."
    return words
