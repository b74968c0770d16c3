"""Brings what runs still need out of a damaged mirror into the one that takes its place. Asks no remote."""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.runtime.telemetry import logger
from services.vcs.errors import GitError, GitOutputTooLargeError, GitTimeoutError, RefRefusedError
from services.vcs.git.repositories import checked_ref, is_sha
from services.vcs.git.runner import Git, Place
from services.vcs.mirrors.files import as_alternate
from services.vcs.mirrors.options import PROMISED, promised_by

log = logger("vcs.salvage")

SALVAGE_TIMEOUT: Final = timedelta(minutes=5)
_KEPT: Final = ("refs/quarterdeck/base", "refs/quarterdeck/rescue")
_PACKED: Final = re.compile(rb"([0-9a-f]{40,64}) (refs/quarterdeck/(?:base|rescue)/\S+)")


def kept_refs(git_dir: Path) -> dict[str, str]:
    """Every pin and rescued work, by full name, as far as it can be read; damage elsewhere does not matter."""
    found: dict[str, str] = {}
    packed = git_dir / "packed-refs"
    for line in packed.read_bytes().splitlines() if packed.is_file() else ():
        if match := _PACKED.fullmatch(line):
            found[match[2].decode("utf-8", "replace")] = match[1].decode("ascii")
    for folder in _KEPT:
        for path in (git_dir / folder).rglob("*"):
            if path.is_file():
                found[str(path.relative_to(git_dir))] = path.read_bytes().decode("ascii", "replace").strip()
    return {name: sha for name, sha in found.items() if is_sha(sha) and _is_name(name)}


async def carry_over(git: Git, old: Path, fresh: Place, refs: Mapping[str, str]) -> dict[str, str]:
    """Put ``refs`` of ``old`` into ``fresh``, with what of their objects is only in ``old``; the rest is returned."""
    shas = set(refs.values())
    missing = shas - await _present(git, fresh, shas)
    known = await git.run("for-each-ref", "--format=^%(objectname)", place=fresh, timeout=SALVAGE_TIMEOUT)
    for sha in missing:
        await _copy(git, old, fresh, sha.encode("ascii") + b"\n" + known)
    there = await _present(git, fresh, shas)
    lines = [f"update {name} {sha}\n" for name, sha in refs.items() if sha in there]
    if lines:
        stdin = "".join(lines).encode()
        await git.run("update-ref", "--stdin", place=fresh, stdin=stdin, timeout=SALVAGE_TIMEOUT)
    return {name: sha for name, sha in refs.items() if sha not in there}


async def _copy(git: Git, old: Path, fresh: Place, revisions: bytes) -> None:
    """All that these reach, or nothing: a pack is there whole or not at all."""
    packs = fresh.git_dir / "objects" / "pack"
    packs.mkdir(parents=True, exist_ok=True)
    _keep_cut_short(old, fresh.git_dir)
    # Of a partial mirror not everything is here: what is not is at the remote.
    promised = any(packs.glob("*.promisor"))
    before, missing = (promised_by("quarterdeck"), ("--missing=allow-promisor",)) if promised else ((), ())
    try:
        name = await git.run(
            *(*before, "pack-objects", "-q", "--revs", *missing, str(packs / "pack")),
            place=fresh,
            stdin=revisions,
            variables={"GIT_ALTERNATE_OBJECT_DIRECTORIES": as_alternate(old / "objects"), **PROMISED},
            timeout=SALVAGE_TIMEOUT,
        )
    except (GitError, GitTimeoutError, GitOutputTooLargeError) as error:
        # The caller finds out by what is not there, and asks the remote.
        log.warning("a pinned commit cannot be read in a damaged mirror", error=str(error))
        return
    if promised and name:
        (packs / f"pack-{name.decode('ascii').strip()}.promisor").touch()


def _keep_cut_short(old: Path, fresh: Path) -> None:
    """Commits at which history ends in ``old`` end it in ``fresh`` too: what was before them is in neither."""
    cut = _lines(old / "shallow") - _lines(fresh / "shallow")
    if cut:
        with (fresh / "shallow").open("a") as file:
            file.writelines(f"{sha}\n" for sha in sorted(cut) if is_sha(sha))


def _lines(path: Path) -> set[str]:
    return set(path.read_text("ascii", "replace").splitlines()) if path.is_file() else set()


async def _present(git: Git, place: Place, shas: Iterable[str]) -> set[str]:
    arguments = ("cat-file", "--batch-check=%(objecttype) %(objectname)")
    stdin = "".join(f"{sha}\n" for sha in shas).encode("ascii")
    listed = await git.run(*arguments, place=place, stdin=stdin, timeout=SALVAGE_TIMEOUT) if stdin else b""
    return {line.removeprefix("commit ") for line in listed.decode("ascii").splitlines() if line.startswith("commit ")}


def _is_name(name: str) -> bool:
    try:
        checked_ref(name)
    except RefRefusedError:
        return False
    return True
