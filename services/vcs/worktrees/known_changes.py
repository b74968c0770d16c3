"""A snapshot renewed where it is known which files were written since the last: those are looked at and no others.

A snapshot of everything stages the whole worktree, three Git processes, and in a large one reads the state of every
file; a run that edits file by file waits for it at every turn. Where it is also known what a file held in the base, no
Git is needed at all (``edits.py``); else one process. What is remembered lies in memory and beside the index: where any
of it is missing, or a file is of a kind that needs a second look, everything is looked at again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from services.vcs.git.diffstat import GITLINK_MODE, LINK_MODE, FileChange, parse_diffstat
from services.vcs.git.runner import Git, Place
from services.vcs.worktrees.edits import edit_of
from services.vcs.worktrees.listings import Listings
from services.vcs.worktrees.snapshots import PRINT_PATCH, STAGE_TIMEOUT, STAGED, Snapshot

MAX_PATHS: Final = 100
MAX_REMEMBERED_BYTES: Final = 128 * 1024
# What stands in them decides about other files.
_FAR_REACHING: Final = (b".gitignore", b".gitattributes", b".gitmodules")
_SPECIAL: Final = {LINK_MODE, GITLINK_MODE}
# No line of a patch's content begins with a letter and holds a blank: base 85 has none.
_PIECE: Final = re.compile(rb"^(?=diff --git )", re.MULTILINE)
_BLOBS: Final = re.compile(rb"^index ([0-9a-f]+)\.\.([0-9a-f]+)", re.MULTILINE)
_NO_BLOB: Final = re.compile("0+")


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written. ``before``: its content at the last snapshot; None: not told."""

    path: bytes
    before: bytes | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One file's part of a snapshot. ``base``: its content in the base; None: not known here."""

    file: FileChange
    patch: bytes
    base: bytes | None = None


Pieces: TypeAlias = Mapping[bytes, Piece]
"""All that differs from the base, by path."""


def pieces_of(snapshot: Snapshot) -> Pieces | None:
    """None where the snapshot cannot be renewed file by file."""
    return _pieces(snapshot.files, snapshot.patch)


def snapshot_of(pieces: Pieces) -> Snapshot:
    ordered = [pieces[path] for path in sorted(pieces)]
    return Snapshot(b"".join(piece.patch for piece in ordered), tuple(piece.file for piece in ordered))


def remembered(pieces: Pieces | None) -> Pieces | None:
    """What is kept of ``pieces`` until the next snapshot; None: nothing, they are too large."""
    if pieces is None or (patches := sum(len(piece.patch) for piece in pieces.values())) > MAX_REMEMBERED_BYTES:
        return None
    if patches + sum(len(piece.base or b"") for piece in pieces.values()) > MAX_REMEMBERED_BYTES:
        return {path: replace(piece, base=None) for path, piece in pieces.items()}
    return pieces


async def renewed(
    git: Git, listings: Listings, place: Place, base_sha: str, known: Pieces, written: Sequence[Written]
) -> Pieces | None:
    """What differs by now, given that since ``known`` nothing but ``written`` was written; None: look at everything.

    ``written``: files that are in the base or in ``known``. Raises ``GitError``, ``GitTimeoutError``.
    """
    paths = {each.path for each in written}
    if len(paths) > MAX_PATHS or any(_needs_all(path, known.get(path)) for path in paths):
        return None
    found = await _edited(git, listings, place, base_sha, known, written)
    if found is None:
        found = await _compared(git, place, base_sha, paths)
    if found is None:
        return None
    return {**{path: piece for path, piece in known.items() if path not in paths}, **found}


async def _edited(
    git: Git, listings: Listings, place: Place, base_sha: str, known: Pieces, written: Sequence[Written]
) -> Pieces | None:
    """Those of ``written`` that differ, where all of them are edits of files whose content in the base is known."""
    bases = {each.path: known[each.path].base if each.path in known else each.before for each in written}
    if None in bases.values() or (listing := await listings.of(git, place, base_sha)) is None:
        return None
    assert place.work_tree is not None
    found = {}
    for path, base in bases.items():
        entry = listing.entry(path)
        edit = edit_of(place.work_tree, path, entry, base) if entry is not None and base is not None else None
        if edit is None:
            return None
        if edit.patch:
            found[path] = Piece(edit.file, edit.patch, base)
    return found


async def _compared(git: Git, place: Place, base_sha: str, paths: Collection[bytes]) -> Pieces | None:
    """Those of ``paths`` that differ, as Git sees it; None where it cannot tell of one of them alone."""
    staged = place.git_dir / STAGED
    index = replace(place, index=staged if staged.exists() else place.git_dir / "index")
    # Only read: the index stays as it was, and what was staged then is compared with what lies there now.
    arguments = ("diff-index", "-z", "--raw", "--numstat", *PRINT_PATCH, base_sha, "--", *map(os.fsdecode, paths))
    literal = {"GIT_LITERAL_PATHSPECS": "1"}
    return _parsed(await git.run(*arguments, place=index, variables=literal, timeout=STAGE_TIMEOUT, writes=False))


def _needs_all(path: bytes, before: Piece | None) -> bool:
    """One that was deleted is no longer among what was staged."""
    return path.rpartition(b"/")[2] in _FAR_REACHING or (before is not None and before.file.change == "deleted")


def _parsed(output: bytes) -> Pieces | None:
    """Records of all files, an empty one, and the patch."""
    records, ended, patch = output.partition(b"\0\0")
    return _pieces(parse_diffstat(records + b"\0" if ended else output), patch)


def _pieces(files: Sequence[FileChange], patch: bytes) -> Pieces | None:
    parts = [part for part in _PIECE.split(patch) if part]
    if len(parts) != len(files) or any({file.old_mode, file.new_mode} & _SPECIAL for file in files):
        return None  # renames are two parts, and a file that was only touched is none
    return {file.path: Piece(_with_blobs(file, part), part) for file, part in zip(files, parts, strict=True)}


def _with_blobs(file: FileChange, patch: bytes) -> FileChange:
    """What lies in the worktree has no id in a raw record, but in the patch."""
    blobs = _BLOBS.search(patch)
    if file.change == "deleted" or not _NO_BLOB.fullmatch(file.new_blob):
        return file
    return replace(file, new_blob=blobs[2].decode("ascii") if blobs else file.old_blob)
