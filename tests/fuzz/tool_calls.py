"""The fuzz of tool inputs: calls of any kind over a hostile workspace, and what must hold whatever they are."""

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import orjson
from hypothesis import strategies as st

from services.agent import events
from services.agent.sandbox import Ended, Limits, Sandbox
from services.agent.tools import Toolbox, ToolCall, ToolResult, Workspace
from services.agent.tools.commands import RunCommand
from services.agent.tools.outputs import Outputs
from services.agent.tools.showing import MAX_OUTPUT_CHARACTERS
from services.agent.tools.toolbox import Kind
from services.agent.transcript import result_blocks
from services.contracts.text import is_storable
from tests.fuzz.hostile import SECRET, Planted, planted
from tests.fuzz.inputs import about, anything, arguments_of, located, paths, strings

DEADLINE_SECONDS = 60
_NOTES_CHARACTERS = 1_100
_SUBJECT_CHARACTERS = 120
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
ALLOWED = ("git status", "make *")


class HostileSandbox:
    """Runs nothing; what it says a command printed is as bad as can be. ``argvs``: what it was given."""

    def __init__(self) -> None:
        self.argvs: list[Sequence[str]] = []

    async def run(self, argv: Sequence[str], *, worktree: Path, limits: Limits, network: bool) -> Ended:
        self.argvs.append(argv)
        whole = b"\x1b[2J\xff\0\n" * 300_000
        return Ended(0, timed_out=False, output="\x1b[2J\0\ud800\n" * 9_000, whole=whole, duration=timedelta(seconds=1))


@dataclass(frozen=True)
class Scene:
    """``allowed``: the commands of a run that has `run_command`; None: any."""

    kind: Kind
    allowed: tuple[str, ...] | None
    calls: tuple[tuple[str, Any], ...]


def _toolbox(root: Path, kind: Kind, allowed: tuple[str, ...] | None, sandbox: HostileSandbox) -> Toolbox:
    outputs = Outputs({"1.txt": b"\x1b[2J kept\xff\n" * 1_000})
    command = RunCommand(cast("Sandbox", sandbox), root, allowed=allowed, network=False, outputs=outputs)
    return Toolbox(Workspace(root), kind=kind, outputs=outputs, extra=[command] if kind == "code" else [])


_MOSTLY_CODE: list[Kind] = ["code", "code", "code", "code", "task", "plan"]


def _scenes_of(kind: Kind) -> st.SearchStrategy[Scene]:
    """Any calls of the tools that such a run has, then all there is to do with one path."""
    specs = _toolbox(Path("/"), kind, None, HostileSandbox()).specs
    named = [st.tuples(st.just(spec.name), arguments_of(spec)) for spec in specs]
    calls = st.lists(st.one_of(*named, st.tuples(strings, anything)), max_size=6)
    both = st.builds(lambda path, calls: (*calls, *about(path)), paths, calls)
    return st.builds(Scene, st.just(kind), st.sampled_from([None, ALLOWED, ()]), both)


scenes = st.one_of(*map(_scenes_of, _MOSTLY_CODE))


async def play(scene: Scene) -> None:
    """Make the calls of ``scene``, and assert all that must hold."""
    with planted() as place:
        sandbox = HostileSandbox()
        toolbox = _toolbox(place.root, scene.kind, scene.allowed, sandbox)
        names = {"root": str(place.root), "base": str(place.base)}
        calls = [
            ToolCall(f"toolu_{number}", name, located(given, **names))
            for number, (name, given) in enumerate(scene.calls)
        ]
        sealed = place.sealed()
        async with asyncio.timeout(DEADLINE_SECONDS):
            results = await toolbox.run(calls)
        assert place.sealed() == sealed, "something outside of the workspace was touched"
        assert [result.tool_use_id for result in results] == [call.id for call in calls]
        for call, result in zip(calls, results, strict=True):
            _check_result(result)
            _check_told(toolbox, call, result, place)
        _check_stored(toolbox)
        _check_commands(sandbox, scene.allowed)


def _check_result(result: ToolResult) -> None:
    assert result.content
    assert len(result.content) <= MAX_OUTPUT_CHARACTERS + _NOTES_CHARACTERS
    assert not _OBEYED.search(result.content), "a terminal would obey it, or nothing could store it"
    assert SECRET not in result.content
    assert result.is_error or not result.malformed
    assert not (result.is_error and result.changed)
    orjson.dumps(result_blocks([result]))


def _check_told(toolbox: Toolbox, call: ToolCall, result: ToolResult, place: Planted) -> None:
    """What the run's events say of the call."""
    subject = toolbox.subject(call)
    assert len(subject) <= _SUBJECT_CHARACTERS
    assert not _OBEYED.search(subject)
    assert "\n" not in subject
    drafts = [events.tool_started(1, call, subject), events.tool_ended(1, call, result)]
    drafts += [events.file_changed(change) for change in result.changed]
    for draft in drafts:
        assert is_storable(orjson.dumps(draft.data).decode())
        assert all(is_storable(value) for value in draft.data.values() if isinstance(value, str))
    for change in result.changed:
        assert os.path.normpath(change.path) == change.path
        assert (place.root / change.path).resolve().is_relative_to(place.root)


def _check_stored(toolbox: Toolbox) -> None:
    """What a checkpoint takes from the tools beside their results."""
    for name, content in toolbox.outputs.take_new().items():
        assert is_storable(name)
        assert len(content) <= 1024**2
    if toolbox.completion is not None:
        assert is_storable(toolbox.completion.summary)
    if toolbox.question is not None:
        assert is_storable(toolbox.question)


def _check_commands(sandbox: HostileSandbox, allowed: tuple[str, ...] | None) -> None:
    for argv in sandbox.argvs:
        assert all(is_storable(word) for word in argv), "no process can be given that"
        if allowed is None:
            assert list(argv[:2]) == ["/bin/sh", "-c"]
        else:
            assert allowed, "none was allowed"
            assert list(argv) == ["git", "status"] or argv[0] == "make"
