"""What is to be run, and in which surroundings: the same whatever confines it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from services.agent.sandbox.limits import Limits

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Command:
    """``argv``: the program, found on the sandbox's PATH, and its arguments. ``worktree``: absolute; where it runs.

    ``streams``: "merged" has no input and one output; "separate" has pipes for all three.
    ``environment``: what it gets beside the few variables that every command has. ``writes``: whether it may change
    the worktree.
    """

    argv: Sequence[str]
    worktree: Path | None
    limits: Limits
    network: bool
    environment: Mapping[str, str] = field(default_factory=dict)
    streams: Literal["merged", "separate"] = "merged"
    writes: bool = True


def variables(command: Command, *, home: str, path: str) -> dict[str, str]:
    """All of the environment that ``command`` gets; nothing of this process's own is in it."""
    usual = {"PATH": path, "HOME": home, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "TERM": "dumb", "NO_COLOR": "1"}  # noqa: S108
    return {**usual, "CI": "1", **command.environment}
