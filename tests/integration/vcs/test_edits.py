"""Files that were edited, told of without Git: what comes of it is what Git says of the same worktree, and applies."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from pathlib import Path

import pytest

from services.vcs.worktrees import known_changes, listings
from services.vcs.worktrees.edits import MAX_EDITED_BYTES, MAX_EDITED_LINES
from services.vcs.worktrees.known_changes import Written
from services.vcs.worktrees.snapshots import Snapshot
from tests.integration.vcs.conftest import Node, Remote
from tests.integration.vcs.told_worktree import ToldWorktree

TEXT = "".join(f"line {number}\n" for number in range(60))
FILES: dict[str, str | bytes | None] = {
    "a/text": TEXT,
    "a/no end": "one\ntwo",
    "no-end": "one\ntwo",
    "crlf": "one\r\ntwo\rthree\r\n",
    "x\ta/text": "a name that ends like another's\n",
    "bytes": b"\0\1\2\n" * 20,
    "latin": b"caf\xe9\n" * 9,
    "empty": "",
    "\N{GREEK SMALL LETTER ALPHA}": "one\n",
    ".gitattributes": "* text=auto eol=crlf ident\n*.md working-tree-encoding=ISO-8859-1\n",
    "readme.md": "$Id$\none\n",
}
LINES = (b"line 7\n", b"$Id: x $\n", b"-- \n", b"+++ b/x\n", b"diff --git a/x b/x\n", b"one\r\n", b"\xe9\xff\n", b"\n")


@pytest.fixture
async def edited(node: Node, remote: Remote) -> ToldWorktree:
    return await ToldWorktree.prepare(node, remote, FILES)


async def test_an_edit_takes_no_git_but_to_list_the_base_once(edited: ToldWorktree):
    _, took = await edited.snapshot(edited.write("a/text", TEXT.replace("line 30", "other").encode()))
    assert took == ["ls-tree"]
    snapshot, took = await edited.snapshot(edited.write("script", b"#!/bin/sh\nexit 1\n"))
    assert took == []
    assert [(file.path, file.new_mode, file.insertions, file.deletions) for file in snapshot.files] == [
        (b"a/text", "100644", 1, 1),
        (b"script", "100755", 1, 0),
    ]


async def test_any_edits_come_to_what_git_says_of_them(edited: ToldWorktree):
    """Lines changed, put in and taken out, again and again in the same files, also back to how they were."""
    chance = random.Random(11)
    names = ["a/text", "no-end", "crlf", "latin", "script", "readme.md", "empty"]
    originals = {name: (edited.path / name).read_bytes() for name in names}
    without_git = 0
    for _ in range(60):
        chosen = chance.sample(names, chance.randint(1, 3))
        written = [edited.write(name, _changed(originals[name], edited.path / name, chance)) for name in chosen]
        snapshot, took = await edited.snapshot(*written)
        without_git += took == []
        whole = await _whole(edited)
        assert _told(snapshot) == _told(whole)
    assert without_git > 40, "what an empty file is told to have held is nothing, and all else is known"


def _changed(original: bytes, path: Path, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return original
    lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(chance.randint(1, 3)):
        place = chance.randint(0, len(lines))
        lines[place : place + chance.choice((0, 0, 1, 5))] = chance.choices(LINES, k=chance.choice((0, 1, 1, 4)))
    return b"".join(lines)[: None if chance.random() < 0.7 else -1]


async def _whole(edited: ToldWorktree) -> Snapshot:
    """What a look at everything says; what is known stays as it was."""
    known = edited.node.worktrees._known["run", 1]
    snapshot = await edited.node.worktrees.checkpoint("run", 1)
    edited.node.worktrees._known["run", 1] = known
    return snapshot


def _told(snapshot: Snapshot) -> list[tuple[bytes, str, str, str, str, str]]:
    return [
        (file.path, file.change, file.old_mode, file.new_mode, file.old_blob, file.new_blob) for file in snapshot.files
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bytes", b"\0\n"),
        ("a/no end", b"a name that Git writes with a tab behind\n"),
        ("\N{GREEK SMALL LETTER ALPHA}", b"a name that Git may write in quotes\n"),
        ("a/text", b"\0 by now no text\n"),
        ("a/text", b"too long\n" * (MAX_EDITED_BYTES // 8)),
        ("a/text", b"\n" * (MAX_EDITED_LINES + 1)),
    ],
)
async def test_of_other_files_git_tells(edited: ToldWorktree, name: str, content: bytes):
    _, took = await edited.snapshot(edited.write(name, content))
    assert "diff-index" in took


async def test_what_the_base_does_not_hold_is_not_believed(edited: ToldWorktree):
    written = edited.write("a/text", b"other\n")
    snapshot, took = await edited.snapshot(Written(written.path, b"something else\n"))
    assert took[-1] == "diff-index"
    assert [(file.path, file.deletions) for file in snapshot.files] == [(b"a/text", 60)]


@pytest.mark.parametrize("turn_into", ["program", "link", "folder", "link above"])
async def test_what_is_no_plain_file_any_more_is_left_to_git(edited: ToldWorktree, turn_into: str):
    """Nobody but our tools should have written; whoever did gets no further than Git would let them."""
    written = edited.write("a/text", b"other\n")
    path = edited.path / "a/text"
    match turn_into:
        case "program":
            path.chmod(0o755)
        case "link":
            path.rename(edited.path / "a/aside")
            path.symlink_to("aside")
        case "folder":
            path.unlink()
            path.mkdir()
        case _:
            (edited.path / "a").rename(edited.path / "elsewhere")
            (edited.path / "a").symlink_to("elsewhere")
    begun = len(edited.node.git.commands)
    await edited.node.worktrees.checkpoint("run", 1, written=[written])
    assert [command[0] for command in edited.node.git.commands[begun:]][:2] == ["ls-tree", "diff-index"]


async def test_more_than_is_remembered_is_asked_of_git(edited: ToldWorktree, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known_changes, "MAX_REMEMBERED_BYTES", 600)
    await edited.snapshot(edited.write("a/text", TEXT.replace("line 30", "other").encode()))
    _, took = await edited.snapshot(edited.write("a/text", TEXT.replace("line 31", "other").encode()))
    assert took == ["diff-index"], "its patch is known, and what it held in the base is not any more"


async def test_a_tree_too_large_to_be_kept_is_listed_once(edited: ToldWorktree, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listings, "MAX_LISTING_BYTES", 50)
    _, first = await edited.snapshot(edited.write("a/text", b"other\n"))
    _, second = await edited.snapshot(edited.write("a/text", b"another\n"))
    assert (first, second) == (["ls-tree", "diff-index"], ["diff-index"])


async def test_the_oldest_listings_make_room_and_are_not_made_again_by_turns(
    edited: ToldWorktree, monkeypatch: pytest.MonkeyPatch
):
    _, place = edited.node.worktrees.located("run", 1)
    git, kept = edited.node.git, listings.Listings()
    shas = [edited.base_sha, f"{edited.base_sha}^0", f"{edited.base_sha}^{{tree}}"]
    size = len(await git.run("ls-tree", "-r", "-z", edited.base_sha, place=place, timeout=timedelta(minutes=1)))
    monkeypatch.setattr(listings, "MAX_KEPT_BYTES", 2 * size)
    begun = len(git.commands)
    found = [await kept.of(git, place, sha) is not None for sha in (*shas[:2], shas[0], shas[2], shas[0], shas[1])]
    assert found == [True, True, True, True, True, False]
    assert [command[-1] for command in git.commands[begun:]] == shas

    monkeypatch.setattr(listings, "_NOT_AGAIN_SECONDS", 0)
    kept = listings.Listings()
    assert all([await kept.of(git, place, sha) is not None for sha in (*shas, shas[0])])


async def test_those_who_want_one_listing_at_once_share_it(edited: ToldWorktree):
    _, place = edited.node.worktrees.located("run", 1)
    git, kept = edited.node.git, listings.Listings()
    begun = len(git.commands)
    found = await asyncio.gather(*(kept.of(git, place, edited.base_sha) for _ in range(20)))
    assert all(found)
    assert len(git.commands) == begun + 1


def test_a_listing_finds_each_entry_by_its_whole_name():
    listed = listings.Listing(
        b"100644 blob " + b"1" * 40 + b"\tx\ta\0"
        b"100755 blob " + b"2" * 40 + b"\ta\0"
        b"160000 commit " + b"3" * 40 + b"\tmodule\0"
        b"120000 blob " + b"4" * 40 + b"\tlink\0"
    )
    assert listed.entry(b"a") == listings.Entry("100755", "2" * 40)
    assert listed.entry(b"x\ta") == listings.Entry("100644", "1" * 40)
    assert listed.entry(b"link") == listings.Entry("120000", "4" * 40)
    assert listed.entry(b"module") is None
    assert listed.entry(b"") is None
    assert listed.entry(b"\ta") is None
