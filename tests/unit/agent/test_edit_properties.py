"""What the editing tools do to files, whatever the order they are called in and whoever writes in between."""

import asyncio
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from services.agent.tools import Toolbox, ToolCall, ToolResult, Workspace
from tests.fuzz.edits import MARK, EditMachine, File, tree_of

TestEdits = EditMachine.TestCase
TestEdits.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)

LINES = st.lists(st.text(alphabet="xy \u00e9\u2028\x85", max_size=6), max_size=5)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
MODES = st.sampled_from([0o600, 0o644, 0o755, 0o444])
FIELDS = {"path": "f", "old_string": "<here>", "new_string": "<there\nand there>"}


async def edited(root: Path, *, every: bool) -> ToolResult:
    calls = [ToolCall("1", "read_file", {"path": "f"}), ToolCall("2", "edit_file", {**FIELDS, "replace_all": every})]
    return (await Toolbox(Workspace(root)).run(calls))[-1]


@settings(max_examples=60, deadline=None)
@given(mark=st.sampled_from(["", MARK]), before=LINES, after=LINES, end=ENDS, is_ended=st.booleans(), mode=MODES)
def test_an_edit_changes_its_place_and_nothing_else(
    mark: str, before: list[str], after: list[str], end: str, is_ended: bool, mode: int
) -> None:
    around = [*before, "{}", *after]
    text = mark + end.join(around) + end * is_ended
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "f")).write_bytes(text.format("<here>").encode())
        path.chmod(mode)
        os.utime(path, ns=(1, 1))
        result = asyncio.run(edited(path.parent, every=False))
        assert not result.is_error, result.content
        # A file whose lines all end in CRLF is one afterwards.
        new = "<there\r\nand there>" if end == "\r\n" and "\n" in text else "<there\nand there>"
        assert tree_of(path.parent) == {"f": File(text.format(new).encode(), mode)}


@settings(max_examples=40, deadline=None)
@given(between=st.lists(st.text(alphabet="xy\n<h", max_size=4), min_size=1, max_size=6))
def test_several_places_are_changed_all_together_or_not_at_all(between: list[str]) -> None:
    text = "<here>".join(between)
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "f")).write_text(text)
        one = asyncio.run(edited(path.parent, every=False))
        assert one.is_error is (len(between) != 2)
        if one.is_error:
            assert path.read_text() == text
        path.write_text(text)
        every = asyncio.run(edited(path.parent, every=True))
        assert every.is_error is (len(between) == 1)
        assert path.read_text() == FIELDS["new_string"].join(between)
