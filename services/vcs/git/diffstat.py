"""Reads `git diff-index --raw --numstat -z`: which files changed, how, and by how much. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Change = Literal["added", "modified", "deleted", "renamed", "type_changed"]

LINK_MODE: Final = "120000"
GITLINK_MODE: Final = "160000"

_CHANGES: Final[dict[str, Change]] = {
    "A": "added",
    "M": "modified",
    "D": "deleted",
    "R": "renamed",
    "T": "type_changed",
}


@dataclass(frozen=True, slots=True)
class FileChange:
    """``path``: the new one, as Git's bytes. ``old_mode``, ``new_mode``: six octal digits. Lines are 0 where binary.

    ``old_blob``, ``new_blob``: ids of the content; zeros where there was or is none.
    """

    path: bytes
    change: Change
    old_mode: str
    new_mode: str
    new_blob: str
    insertions: int = 0
    deletions: int = 0
    binary: bool = False
    old_blob: str = ""


def parse_diffstat(output: bytes) -> tuple[FileChange, ...]:
    """All changes in Git's order (by path). The output holds every raw record before the first count."""
    records = iter(output.split(b"\0")[:-1])
    raw: list[tuple[bytes, list[str]]] = []
    counts: dict[bytes, tuple[bytes, bytes]] = {}
    for record in records:
        if record.startswith(b":"):
            fields = record[1:].decode("ascii").split(" ")
            raw.append((_path(records, renamed=fields[4].startswith("R")), fields))
        else:
            insertions, deletions, path = record.split(b"\t", 2)
            counts[path or _path(records, renamed=True)] = (insertions, deletions)
    return tuple(_file_change(path, fields, counts.get(path, (b"0", b"0"))) for path, fields in raw)


def _path(records: Iterator[bytes], *, renamed: bool) -> bytes:
    """The next path; of a rename's two, the new one."""
    if renamed:
        next(records)
    return next(records)


def _file_change(path: bytes, fields: list[str], counts: tuple[bytes, bytes]) -> FileChange:
    old_mode, new_mode, old_blob, new_blob, status = fields
    binary = counts[0] == b"-"
    insertions, deletions = (0, 0) if binary else (int(counts[0]), int(counts[1]))
    change = _CHANGES[status[0]]
    return FileChange(path, change, old_mode, new_mode, new_blob, insertions, deletions, binary, old_blob)
