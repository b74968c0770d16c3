import os
import stat
from pathlib import Path

import pytest

from services.agent.tools import FileChange, Toolbox, ToolCall, Workspace
from services.agent.tools.outputs import MAX_LINE_CHARACTERS
from services.agent.tools.showing import MAX_OUTPUT_CHARACTERS
from tests.unit.agent.conftest import Use, names_in


async def test_lines_are_numbered_and_a_range_can_be_asked_for(root: Path, use: Use) -> None:
    (root / "a.txt").write_text("one\ntwo\nthree\nfour")
    assert (await use("read_file", path="a.txt")).content == "1\tone\n2\ttwo\n3\tthree\n4\tfour\n[lines 1-4 of 4]"
    part = await use("read_file", path="a.txt", start_line=2, end_line=3)
    assert part.content == "2\ttwo\n3\tthree\n[lines 2-3 of 4]"
    assert (await use("read_file", path="a.txt", start_line=4, end_line=9)).content == "4\tfour\n[lines 4-4 of 4]"


async def test_a_range_that_cannot_be_is_an_error(root: Path, use: Use) -> None:
    (root / "a.txt").write_text("one\n")
    (root / "empty").touch()
    assert "has 1 lines" in (await use("read_file", path="a.txt", start_line=2)).content
    assert "comes before" in (await use("read_file", path="a.txt", start_line=2, end_line=1)).content
    assert (await use("read_file", path="empty")).content == "'empty' is empty."


async def test_long_lines_and_long_output_are_cut_with_a_note(root: Path, use: Use) -> None:
    (root / "wide").write_text("x" * 5_000 + "\nend\n")
    (root / "tall").write_text("".join(f"line {number}\n" for number in range(10_000)))
    wide = (await use("read_file", path="wide")).content
    assert wide.splitlines()[0] == f"1\t{'x' * MAX_LINE_CHARACTERS} [… the rest of this line is left out]"
    tall = (await use("read_file", path="tall")).content
    assert tall.count("characters left out …]") == 1
    assert tall.startswith("1\tline 0\n")
    assert tall.endswith("10000\tline 9999\n[lines 1-10000 of 10000]")
    assert MAX_OUTPUT_CHARACTERS < len(tall) < MAX_OUTPUT_CHARACTERS + 100


async def test_control_characters_are_shown_not_sent(root: Path, use: Use) -> None:
    (root / "a.txt").write_bytes(b"\x1b[31mred\x1b]0;title\x07\x7f\xc2\x9b2J\rback\n")
    shown = (await use("read_file", path="a.txt")).content
    assert shown == "1\t\\x1b[31mred\\x1b]0;title\\x07\\x7f\\x9b2J\\x0dback\n[lines 1-1 of 1]"


async def test_a_large_file_is_read_by_ranges_alone(root: Path, use: Use, workspace: Workspace) -> None:
    (root / "large").write_text("".join(f"row {number}\r\n" for number in range(50_000)), newline="")
    (root / "larger").write_text("".join(f"row {number}\r\n" for number in range(200_000)), newline="")
    for name in ("large", "larger"):
        refused = await use("read_file", path=name)
        assert refused.is_error
        assert "give start_line and end_line" in refused.content
        assert (
            "49000\trow 48999\n49001\trow 49000\n"
            in (await use("read_file", path=name, start_line=49_000, end_line=49_001)).content
        )
    assert set(workspace.read_versions()) == {"large"}, "what is too large to change needs no version"
    past = await use("read_file", path="larger", start_line=200_001, end_line=200_002)
    assert past.is_error
    assert "has 200000 lines" in past.content
    assert "more than the 1,048,576" in (await use("edit_file", path="larger", old_string="a", new_string="b")).content


async def test_a_huge_sparse_file_and_a_huge_line_end_quickly(root: Path, use: Use) -> None:
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with (root / "line").open("wb") as file:
        file.write(("é" * (1 << 20)).encode() * 3 + b"\nsecond\n")
    assert "binary" in (await use("read_file", path="sparse", start_line=1, end_line=2)).content
    shown = (await use("read_file", path="line", start_line=1, end_line=2)).content
    assert shown.endswith("2\tsecond\n[lines 1-2 of more]")
    assert shown.count("é") == MAX_LINE_CHARACTERS


@pytest.mark.parametrize(("content", "word"), [(b"GIF89a\0\1", "binary file of 8 bytes"), (b"caf\xe9\n", "not UTF-8")])
async def test_what_is_not_text_is_refused_with_its_size(root: Path, use: Use, content: bytes, word: str) -> None:
    (root / "x").write_bytes(content)
    refused = await use("read_file", path="x")
    assert refused.is_error
    assert word in refused.content
    assert "bytes" in refused.content


async def test_writing_makes_directories_and_says_what_changed(root: Path, use: Use) -> None:
    made = await use("write_file", path="a/b/c.txt", content="hello\n")
    assert made.changed == (FileChange("a/b/c.txt", "added"),)
    assert (root / "a/b/c.txt").read_text() == "hello\n"
    assert stat.S_IMODE((root / "a/b/c.txt").stat().st_mode) == 0o644
    again = await use("write_file", path="a/b/c.txt", content="hello\n")
    assert (again.is_error, again.changed) == (False, ())
    assert "nothing changed" in again.content
    replaced = await use("write_file", path="a/b/c.txt", content="bye\n")
    assert replaced.changed == (FileChange("a/b/c.txt", "modified"),), "a write counts as a read"
    assert made.changed[0].before is None
    assert replaced.changed[0].before == b"hello\n"
    assert names_in(root / "a/b") == ["c.txt"]


@pytest.mark.parametrize("tool", ["write_file", "edit_file"])
async def test_a_file_must_have_been_read_as_it_is_now(root: Path, use: Use, tool: str) -> None:
    change = {"content": "new\n"} if tool == "write_file" else {"old_string": "old", "new_string": "new"}
    (root / "a.txt").write_text("old\n")
    unread = await use(tool, path="a.txt", **change)
    assert unread.is_error
    assert "was not read" in unread.content
    await use("read_file", path="a.txt")
    (root / "a.txt").write_text("old, but changed\n")
    stale = await use(tool, path="a.txt", **change)
    assert stale.is_error
    assert "changed since it was read" in stale.content
    assert (root / "a.txt").read_text() == "old, but changed\n"
    await use("read_file", path="a.txt")
    assert not (await use(tool, path="a.txt", **change)).is_error


async def test_what_was_read_outlives_the_process(root: Path, use: Use, workspace: Workspace) -> None:
    (root / "a.txt").write_text("old\n")
    await use("read_file", path="./a.txt")
    successor = Workspace(root)
    successor.restore_read_versions(workspace.read_versions())
    (result,) = await Toolbox(successor).run([ToolCall("1", "write_file", {"path": "a.txt", "content": "new\n"})])
    assert not result.is_error


async def test_edits_keep_mode_line_ends_and_byte_order_mark(root: Path, use: Use) -> None:
    script = root / "run.sh"
    script.write_bytes(b"\xef\xbb\xbf#!/bin/sh\r\necho a\r\necho b\r\n")
    script.chmod(0o4755)
    shown = (await use("read_file", path="run.sh")).content
    assert shown.startswith("1\t#!/bin/sh\n2\techo a\n")
    assert "CRLF" in shown
    assert "byte order mark" in shown
    edited = await use("edit_file", path="run.sh", old_string="echo a\necho b", new_string="echo c\necho d\necho e")
    assert edited.content == "Replaced 1 place in 'run.sh'."
    assert script.read_bytes() == b"\xef\xbb\xbf#!/bin/sh\r\necho c\r\necho d\r\necho e\r\n"
    assert stat.S_IMODE(script.stat().st_mode) == 0o755, "the executable bit stays, set-user-id does not"


async def test_a_failed_edit_leaves_the_file_alone(root: Path, use: Use) -> None:
    (root / "a.txt").write_text("x x\n")
    await use("read_file", path="a.txt")
    failed = await use("edit_file", path="a.txt", old_string="x", new_string="y")
    assert failed.is_error
    assert "occurs 2 times" in failed.content
    assert failed.changed == ()
    assert (root / "a.txt").read_text() == "x x\n"
    assert (await use("edit_file", path="a.txt", old_string="x", new_string="y", replace_all=True)).changed


@pytest.mark.parametrize("content", ["a\0b", "a\ud800b"])
async def test_text_that_cannot_be_stored_is_refused(root: Path, use: Use, content: str) -> None:
    refused = await use("write_file", path="a.txt", content=content)
    assert refused.malformed
    assert "content: " in refused.content
    assert names_in(root) == []


async def test_too_much_text_is_refused(root: Path, use: Use) -> None:
    assert "1,048,577 bytes" in (await use("write_file", path="a.txt", content="a" * 1_048_577)).content
    assert names_in(root) == []


async def test_deleting_and_moving(root: Path, use: Use) -> None:
    (root / "a.txt").write_text("text\n")
    await use("read_file", path="a.txt")
    moved = await use("move_file", old_path="a.txt", new_path="sub/b.txt")
    assert moved.changed == (FileChange("a.txt", "deleted"), FileChange("sub/b.txt", "added"))
    assert not (await use("edit_file", path="sub/b.txt", old_string="text", new_string="t")).is_error, "it was read"
    (root / "c.txt").write_text("other\n")
    assert "exists already" in (await use("move_file", old_path="c.txt", new_path="sub/b.txt")).content
    deleted = await use("delete_file", path="sub/b.txt")
    assert deleted.changed == (FileChange("sub/b.txt", "deleted"),)
    assert "does not exist" in (await use("delete_file", path="sub/b.txt")).content
    assert (await use("delete_file", path="sub")).is_error
    assert (await use("move_file", old_path="sub", new_path="other")).is_error
    assert (root / "c.txt").read_text() == "other\n"


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\x7f"])
async def test_no_name_with_control_characters_is_made(root: Path, use: Use, name: str) -> None:
    (root / "plain").touch()
    for result in (
        await use("write_file", path=name, content="x"),
        await use("move_file", old_path="plain", new_path=name),
    ):
        assert result.is_error
        assert "control characters" in result.content
    assert names_in(root) == ["plain"]


@pytest.mark.parametrize("failing", ["rename", "fchmod"])
async def test_nothing_is_left_of_a_write_that_failed(
    root: Path, use: Use, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    refused = await use("write_file", path="a.txt", content="x")
    assert refused.is_error
    assert "no space is left" in refused.content
    assert names_in(root) == []


async def test_a_file_in_place_of_a_directory_is_named(root: Path, use: Use) -> None:
    (root / "a").write_text("x")
    os.mkfifo(root / "pipe")
    assert "does not lead through plain directories" in (await use("write_file", path="a/b", content="x")).content
    assert "a directory" in (await use("read_file", path="")).content
    for result in (
        await use("read_file", path="pipe"),
        await use("write_file", path="pipe", content="x"),
        await use("move_file", old_path="pipe", new_path="b"),
        await use("search_code", path="pipe", pattern="x"),
    ):
        assert result.is_error
        assert "not a regular file" in result.content
