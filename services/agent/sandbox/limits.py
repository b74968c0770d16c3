"""What one command may use, and how the shell from which it begins sets that; wall time is the caller's to watch."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

_OPEN_FILES = 8_192
_KILOBYTE = 1024
_BLOCK_BYTES = 512

GO = b"\n"
"""What lets a command begin that waits at its gate."""
# Without this, what is killed while it is being started (or whose agent is) could go on, with nobody to end it.
_WAIT = "read -r _ || exit 1"
_LOWER = 'for each in $1; do ulimit -${each%=*} ${each#*=}; done 2>/dev/null; shift; exec "$@"'
_NO_INPUT = "exec </dev/null"


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


def gated(
    argv: Sequence[str], limits: Limits, *, streams: Literal["merged", "separate"], count_processes: bool
) -> list[str]:
    """``argv``, to begin within ``limits`` once ``GO`` comes on its input, and never where that ends before.

    ``count_processes``: only where they are counted for the command alone, as in a user namespace.
    """
    script = [_WAIT, *([_NO_INPUT] if streams == "merged" else []), _LOWER]
    return ["/bin/sh", "-c", "; ".join(script), "sh", _bounds(limits, count_processes=count_processes), *argv]


def _bounds(limits: Limits, *, count_processes: bool) -> str:
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
