"""How much of the disk must go, what goes first, and how it is added up."""

from pathlib import Path
from typing import Any

import pytest

from services.vcs.disk.rescue import Kept, RescuedWork
from services.vcs.disk.usage import DiskLimits, Measured, WorktreeUsage, bytes_to_free, leaving_order
from services.vcs.mirrors.records import MirrorFolder
from services.vcs.worktrees.spares import Spare

WORK = RescuedWork("refs/quarterdeck/rescue/r/1", "r", "a" * 40, 7)


def mirror(folder: str, **fields: Any) -> MirrorFolder:
    known: dict[str, Any] = {"key": f"host/{folder}", "url": "", "bytes": 0, "used_at": 0.0, "fetched_at": 0.0}
    return MirrorFolder(folder=folder, **(known | fields))


@pytest.mark.parametrize(
    ("budget", "share", "used", "free", "expected"),
    [
        (0, 0.0, 10**12, 0, 0),
        (100, 0.0, 100, 0, 0),
        (100, 0.0, 130, 0, 30),
        (0, 0.1, 0, 100, 0),
        (0, 0.1, 0, 40, 60),
        (100, 0.1, 130, 40, 60),
        (100, 0.1, 190, 40, 90),
    ],
)
def test_what_must_go_keeps_both_limits(budget: int, share: float, used: int, free: int, expected: int) -> None:
    limits = DiskLimits(budget_bytes=budget, least_free_share=share)
    assert bytes_to_free(limits, used=used, free=free, total=1000) == expected


def test_the_least_recently_used_leaves_first() -> None:
    mirrors = [mirror("b", used_at=3.0), mirror("c", used_at=1.0), mirror("a", used_at=3.0)]
    assert [one.folder for one in leaving_order(mirrors)] == ["c", "a", "b"]


def test_mirrors_worktrees_spares_and_trash_add_up() -> None:
    one, two = mirror("one", bytes=100, used_at=5.9, fetched_at=4.2), mirror("two", bytes=10)
    worktrees = {("r", 1): WorktreeUsage("one", 7), ("r", 2): WorktreeUsage("one", 5), ("q", 1): WorktreeUsage("", 1)}
    spares = {Spare(Path("s"), "two", "o", 0.0): 3}
    measured = Measured((one, two), {"one": Kept(("r",), (WORK,))}, worktrees, spares, trash_bytes=1000)
    assert measured.used_bytes == 1126
    first, second = measured.usage_of(one), measured.usage_of(two)
    assert (first.repository, first.bytes, first.used_at, first.fetched_at) == ("host/one", 100, 5, 4)
    assert (first.worktrees, first.worktree_bytes, first.rescued) == (2, 12, (WORK,))
    assert (second.worktrees, second.worktree_bytes, second.rescued) == (0, 3, ())
