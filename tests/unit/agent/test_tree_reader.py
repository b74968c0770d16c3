"""What a checkpoint asks of the vcs about a worktree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from services.agent.checkpoints import Snapshot, TreeReader, TreeTooLargeError
from services.agent.tools import FileChange, Workspace
from services.jobs.models import Hold, SavedTree


class Asked:
    """A vcs that remembers what it was told of."""

    def __init__(self) -> None:
        self.told: list[list[tuple[str, bytes | None]]] = []
        self.files: dict[str, tuple[str, str]] = {}
        self.error: Exception | None = None

    async def snapshot(self, hold: Hold, *, written: Sequence[FileChange] = ()) -> Snapshot:
        self.told.append([(each.path, each.before) for each in written])
        if self.error is not None:
            raise self.error
        return Snapshot(b"", self.files)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def reader(asked: Asked, tmp_path: Path) -> TreeReader:
    hold = Hold(uuid4(), uuid4(), 1, uuid4())
    return TreeReader(asked, hold, Workspace(tmp_path), is_fresh=True)


async def test_of_a_file_that_was_written_twice_the_oldest_content_is_told(reader: TreeReader, asked: Asked):
    twice = [FileChange("a", "modified", b"1"), FileChange("b", "modified", b"x"), FileChange("a", "modified", b"2")]
    await reader(twice)
    assert sorted(asked.told[0]) == [("a", b"1"), ("b", b"x")]


async def test_of_one_that_was_changed_and_deleted_its_content_is_told_still(reader: TreeReader, asked: Asked):
    await reader([FileChange("a", "modified", b"1"), FileChange("a", "deleted")])
    assert asked.told == [[("a", b"1")]]


@pytest.mark.parametrize("path", ["new", "no\udcfftext"])
async def test_where_a_file_is_new_or_cannot_be_named_everything_is_looked_at(
    reader: TreeReader, asked: Asked, path: str
):
    await reader([FileChange("a", "modified", b"1"), FileChange(path, "added" if path == "new" else "modified")])
    assert asked.told == [[]]


async def test_what_is_not_known_is_asked_for_as_a_whole_and_nothing_not_at_all(reader: TreeReader, asked: Asked):
    assert await reader([]) is None
    await reader(None)
    assert asked.told == [[]]


async def test_what_is_too_large_leaves_the_stored_tree_and_is_told_of(reader: TreeReader, asked: Asked):
    asked.files = {"a": ("added", "1")}
    await reader(None)
    asked.error = TreeTooLargeError("more than 63 MiB: big.bin")
    assert await reader(None) == SavedTree(None, {}, is_behind=True)
    assert (reader.problem, reader.changed()) == ("more than 63 MiB: big.bin", [])
    assert await reader([]) is None
    assert reader.problem, "who only reads mends nothing"
    asked.error, asked.files = None, {"a": ("added", "1"), "b": ("added", "2")}
    assert await reader(None) == SavedTree(b"", {})
    assert (reader.problem, reader.changed()) == ("", [FileChange("b", "added")])
