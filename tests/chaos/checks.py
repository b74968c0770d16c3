"""What was checked and what was broken, counted by invariant."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Invariant(StrEnum):
    COMES_BACK = "a process that died is started again and gets healthy"
    STOPS = "a process that is told to stop does so in time"
    NOT_REFUSED = "no submission is refused, whatever is away"
    ONE_JOB = "a submission that was accepted is one job, however often it was sent"
    FINAL = "every job and every run is final"
    COUNTERS = "a job's counters and state are those of its runs"
    NOT_FAILED = "a run fails for nothing but agents lost too often"
    DELIVERED = "a delivered run: one open changeset, one branch, one commit on its base, exactly the change"
    NO_STRAY = "an origin holds no branch of ours but those of delivered runs"
    CANCELLED = "an accepted cancel ends in `cancelled`, and nothing is pushed after it"
    TRANSCRIPT = "a run's messages count 1 … n, its attempts never overlap, no turn is paid twice"
    NUMBERS = "a job's durable events count 1 … n"
    MOVES = "a run moves along the table only, and never again once it is final"
    FENCED = "nothing is told by an attempt that does not hold its run"
    WATCHED = "whoever follows a job's events gets each durable one once and in order"
    NO_LEASE = "no lease is left"
    NO_WORKTREE = "no worktree is left that nobody holds"
    NO_PROCESS = "no process is left once the stack is down"


@dataclass
class Checks:
    """``broken``: in words, by invariant, in the order in which it was found."""

    counts: Counter[Invariant] = field(default_factory=Counter)
    broken: dict[Invariant, list[str]] = field(default_factory=dict)

    def check(self, invariant: Invariant, holds: bool, otherwise: str) -> None:
        """Count one check; ``otherwise`` says what is wrong where it does not hold."""
        self.counts[invariant] += 1
        if not holds:
            self.broken.setdefault(invariant, []).append(otherwise)

    @property
    def all_held(self) -> bool:
        return not self.broken
