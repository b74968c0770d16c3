"""Cgroups for the memory and the process count of one command; both versions, where this process may make them."""

import asyncio
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.agent.sandbox.limits import Limits

_PREFIX = "qd-sandbox-"
_TRIES = 200
_LOOK_AGAIN_SECONDS = 0.005
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """``parent``: a folder in which a cgroup can be made. ``controllers``: those of ours that it has."""

    parent: Path
    controllers: frozenset[str]
    version: int

    def limits(self, limits: Limits) -> dict[str, str]:
        """What to write into which file of a new cgroup; a name that ends in "?" may be missing."""
        memory, processes = str(limits.memory_bytes), str(limits.processes)
        if self.version == 1:
            files = {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes?": memory, "pids.max": processes}
        else:
            files = {"memory.max": memory, "memory.swap.max?": "0", "pids.max": processes}
        return {name: value for name, value in files.items() if name.partition(".")[0] in self.controllers}


class Cgroup:
    """The cgroups of one command, one for each hierarchy."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders

    def add(self, pid: int) -> None:
        """Raises ``OSError``."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    async def remove(self) -> None:
        """Once nothing runs in it any more. What cannot be removed, the next start of an agent here does."""
        for _ in range(_TRIES):
            self._folders = [folder for folder in self._folders if not _removed(folder)]
            if not self._folders:
                return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Cgroups:
    def __init__(self, hierarchies: list[Hierarchy]) -> None:
        self._hierarchies = hierarchies
        self.controllers = frozenset[str]().union(*(each.controllers for each in hierarchies))

    def make(self, limits: Limits) -> Cgroup:
        """Raises ``OSError``: then nothing is left of it."""
        name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        made: list[Path] = []
        try:
            for hierarchy in self._hierarchies:
                folder = hierarchy.parent / name
                folder.mkdir()
                made.append(folder)
                _write(folder, hierarchy.limits(limits))
        except OSError:
            for folder in made:
                _removed(folder)
            raise
        return Cgroup(made)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, value in files.items():
        path = folder / name.removesuffix("?")
        if path.exists() or not name.endswith("?"):
            path.write_text(value)


def find() -> Cgroups:
    """Those in which cgroups can really be made, maybe none; removes what agents that died left there."""
    usable = []
    for hierarchy in hierarchies(Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")):
        _sweep(hierarchy.parent)
        try:
            made = Cgroups([hierarchy]).make(Limits())
        except OSError:
            continue
        for folder in made._folders:  # noqa: SLF001 - of this module
            _removed(folder)
        usable.append(hierarchy)
    return Cgroups(usable)


def hierarchies(memberships: Path, mounts: Path) -> Iterator[Hierarchy]:
    """Those with our controllers, as the two files of ``/proc/self`` have them."""
    try:
        paths, mounted = memberships.read_text().splitlines(), mounts.read_text().splitlines()
    except OSError:
        return
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in paths)}
    for line in mounted:
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2" and "" in own:
            yield from _of_version_2(_beneath(point, root, own[""]))
        elif kind == "cgroup":
            ours = frozenset(options.split(",")) & {"memory", "pids"}
            joined = next((path for names, path in own.items() if ours & set(names.split(","))), None)
            if ours and joined is not None:
                yield Hierarchy(_beneath(point, root, joined), ours, 1)


def _beneath(point: str, root: str, path: str) -> Path:
    """Where ``path`` is, with ``root`` of the hierarchy mounted at ``point``."""
    inside = path.removeprefix(root) if root != "/" else path
    return Path(point) / inside.lstrip("/")


def _of_version_2(own: Path) -> Iterator[Hierarchy]:
    # A cgroup with processes cannot share out its memory: where this one does not, its parent may, which is how a
    # delegated tree with the service in a leaf of it looks.
    for parent in (own, own.parent):
        with suppress(OSError):
            shared = frozenset((parent / "cgroup.subtree_control").read_text().split()) & {"memory", "pids"}
            if shared:
                yield Hierarchy(parent, shared, 2)
                return


def _sweep(parent: Path) -> None:
    with suppress(OSError):
        for folder in parent.glob(f"{_PREFIX}*-*"):
            owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
            if not Path("/proc", owner).exists():
                _removed(folder)
