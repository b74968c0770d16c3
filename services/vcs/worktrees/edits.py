"""A file that was edited, as Git would tell of it, without Git: where its content in the base is known, nothing but the
new one has to be read. To start a process takes longer than all of this.
"""

import hashlib
import io
import os
import re
import stat
from dataclasses import dataclass
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import Final

from services.vcs.git.diffstat import FileChange
from services.vcs.worktrees.listings import Entry

MAX_EDITED_BYTES: Final = 64 * 1024
MAX_EDITED_LINES: Final = 4_000
_CONTEXT: Final = 3
_FILE: Final = "100644"
_PROGRAM: Final = "100755"
# What Git writes into a patch as it is, without quotes.
_PLAIN_PATH: Final = re.compile(rb"[!#-\[\]-~]+")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Edit:
    """``patch``: as `git diff --full-index` prints it, with one hunk; empty where the file is as in the base."""

    file: FileChange
    patch: bytes


def edit_of(tree: Path, path: bytes, entry: Entry, base: bytes) -> Edit | None:
    """What the file ``path`` beneath ``tree`` has come to, whose content was ``base``; None: Git has to say.

    ``entry``: of the base. Files are compared byte for byte, as they are checked out (``checkouts.py``).
    """
    if not _PLAIN_PATH.fullmatch(path) or blob_id(base) != entry.blob:
        return None
    found = _read(tree, path)
    if found is None:
        return None
    mode, content = found
    if mode != entry.mode or not (_is_short_text(base) and _is_short_text(content)):
        return None
    blob = blob_id(content)
    if blob == entry.blob:
        return Edit(FileChange(path, "modified", mode, mode, blob, old_blob=blob), b"")
    hunk, insertions, deletions = _hunk(io.BytesIO(base).readlines(), io.BytesIO(content).readlines())
    names = b"diff --git a/%b b/%b\nindex %b..%b %b\n--- a/%b\n+++ b/%b\n"
    ids = (entry.blob.encode("ascii"), blob.encode("ascii"), mode.encode("ascii"))
    file = FileChange(path, "modified", mode, mode, blob, insertions, deletions, old_blob=entry.blob)
    return Edit(file, names % (path, path, *ids, path, path) + hunk)


def _is_short_text(content: bytes) -> bool:
    """Of which a patch is made in less time than a process starts in."""
    return len(content) <= MAX_EDITED_BYTES and content.count(b"\n") <= MAX_EDITED_LINES and b"\0" not in content


def blob_id(content: bytes) -> str:
    """Git's name for ``content``, in repositories that use SHA-1."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _hunk(old: list[bytes], new: list[bytes]) -> tuple[bytes, int, int]:
    """From the first line that differs to the last, with how many lines went in and out."""
    head = _alike(old, new)
    tail = min(_alike(old[::-1], new[::-1]), len(old) - head, len(new) - head)
    out, put = old[head : len(old) - tail], new[head : len(new) - tail]
    before = old[max(0, head - _CONTEXT) : head]
    after = old[len(old) - tail :][:_CONTEXT]
    around = len(before) + len(after)
    ranges = b"@@ -%b +%b @@\n" % (
        _range(head - len(before), around + len(out)),
        _range(head - len(before), around + len(put)),
    )
    marked = ((b" ", before), (b"-", out), (b"+", put), (b" ", after))
    return ranges + b"".join(_line(mark, line) for mark, lines in marked for line in lines), len(put), len(out)


def _alike(old: list[bytes], new: list[bytes]) -> int:
    """How many lines the two begin with in common."""
    return sum(takewhile(bool, map(eq, old, new)))


def _range(skipped: int, count: int) -> bytes:
    """Where there are no lines, the one before them is named."""
    return b"%d,%d" % (skipped + 1 if count else skipped, count)


def _line(mark: bytes, line: bytes) -> bytes:
    return mark + line if line.endswith(b"\n") else mark + line + b"\n\\ No newline at end of file\n"


def _read(tree: Path, path: bytes) -> tuple[str, bytes] | None:
    """Mode and content of a regular file, and a byte more than is wanted where it is too large; follows no link."""
    *folders, name = path.split(b"/")
    try:
        descriptor = os.open(tree, _FOLDER)
        try:
            for folder in folders:
                inner = os.open(folder, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            with os.fdopen(os.open(name, _READ, dir_fd=descriptor), "rb") as file:
                permissions = os.fstat(file.fileno()).st_mode
                if not stat.S_ISREG(permissions):
                    return None
                return _PROGRAM if permissions & stat.S_IXUSR else _FILE, file.read(MAX_EDITED_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError:
        return None  # whatever it is now
