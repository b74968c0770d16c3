"""What one command may use, and how the shell from which it begins sets that; wall time is the caller's to watch."""

from dataclasses import dataclass
from datetime import timedelta

_OPEN_FILES = 8_192
_KILOBYTE = 1024
_BLOCK_BYTES = 512

LOWER = 'for each in $1; do ulimit -${each%=*} ${each#*=}; done 2>/dev/null; shift; exec "$@"'
"""A script for sh whose first argument comes of ``bounds``, the others of the command; it becomes the command."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``wall``: from start to SIGTERM. ``cpu``: of each process. ``memory_bytes``, ``processes``: of the command with
    all it starts where a cgroup can be made, else memory of each process. ``file_bytes``: the largest file, and of each
    folder for temporary files all of it. ``output_bytes``: how much of the output is kept; it may print more.
    """

    wall: timedelta = timedelta(seconds=120)
    cpu: timedelta = timedelta(minutes=10)
    memory_bytes: int = 2 * 1024**3
    processes: int = 256
    file_bytes: int = 1024**3
    output_bytes: int = 1024**2


def bounds(limits: Limits, *, count_processes: bool) -> str:
    """``count_processes``: only where they are counted for the command alone, as in a user namespace."""
    pairs = {
        # Not address space: runtimes that reserve far more of it than they use (Node, Java) do not start with that.
        "d": limits.memory_bytes // _KILOBYTE,
        "f": limits.file_bytes // _BLOCK_BYTES,
        "t": max(1, round(limits.cpu.total_seconds())),
        "n": _OPEN_FILES,
        "c": 0,
    }
    if count_processes:
        # Shells differ in the letter; where the other one means something else, it is nothing that can be set.
        pairs |= {"p": limits.processes, "u": limits.processes}
    return " ".join(f"{option}={value}" for option, value in pairs.items())
