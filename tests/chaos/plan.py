"""What will be done to the stack and asked of it, drawn from a seed. Pure: no clock, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeVar

SERVERS_AND_SERVICES = ("gateway", "scheduler", "scheduler-2", "vcs", "nats", "postgres")
EVERYTHING = "everything"
STORE = "nats"
"""Whose storage is wiped."""

FREEZE_SECONDS = (9.0, 12.0)
"""Longer than a lease (8 s): what is stopped wakes up as a zombie."""
MOST_REPOSITORIES = 3
LONGEST_CANCEL_DELAY_SECONDS = 2.0
_SMALLEST_MIX = 4
"""With fewer kills than this there are kills alone: a probe for one fault, not a mix."""
_REPOSITORIES = (1, 1, 1, 1, 2, 2, 3)

Item = TypeVar("Item")
CancelOf = Literal["job", "run"]


class FaultKind(StrEnum):
    KILL = "SIGKILL"
    KILL_ALL = "SIGKILL to all"
    WIPE = "store wiped"
    """SIGKILL, and its storage is gone when it starts again."""
    FREEZE = "SIGSTOP, SIGCONT"
    RESTART = "orderly stop"


@dataclass(frozen=True)
class Fault:
    """``pause_seconds``: how long to wait before it. ``freeze_seconds``: only of a freeze, else 0."""

    kind: FaultKind
    target: str
    pause_seconds: float
    freeze_seconds: float = 0.0


@dataclass(frozen=True)
class PlannedJob:
    """``origins``: indices, all different. ``pause_seconds``: before its submission.
    ``is_sent_twice``: two requests with one Idempotency-Key at once. ``is_watched``: its events are followed.
    ``cancelled``: what is cancelled, ``cancel_after_seconds`` behind the submission; a run is ``cancelled_run``, modulo
    their number.
    """

    number: int
    origins: tuple[int, ...]
    pause_seconds: float
    is_sent_twice: bool
    is_watched: bool
    cancelled: CancelOf | None
    cancelled_run: int
    cancel_after_seconds: float


@dataclass(frozen=True)
class Plan:
    seed: int
    faults: tuple[Fault, ...]
    jobs: tuple[PlannedJob, ...]


def make_plan(*, seed: int, minutes: float, kills: int, jobs: int, agents: int, origins: int) -> Plan:
    """The plan of a seed: the same arguments always give the same one.

    ``minutes``: over how long faults and submissions are spread. ``kills``: how many faults are a SIGKILL, those of
    everything and those with a wipe included; freezes and orderly stops come on top, about three to ten kills.
    """
    chance = random.Random(f"{seed}/faults")
    faults = _with_pauses(_faults(chance, kills, agents), _pauses(chance, minutes * 60), chance)
    return Plan(seed, tuple(faults), tuple(_jobs(seed, jobs, minutes, origins)))


def _faults(chance: random.Random, kills: int, agents: int) -> list[tuple[FaultKind, str]]:
    """Kinds and targets in the order in which they come; every target has its turn before any comes again."""
    targets = [*SERVERS_AND_SERVICES, *(f"agent-{number}" for number in range(1, agents + 1))]
    wipes, everything, freezes, restarts = (_share(kills, each) for each in (12, 25, 6, 8))
    singles = kills - wipes - everything
    drawn = [(FaultKind.WIPE, STORE)] * wipes + [(FaultKind.KILL_ALL, EVERYTHING)] * everything
    kinds = [FaultKind.KILL] * singles + [FaultKind.FREEZE] * freezes + [FaultKind.RESTART] * restarts
    chance.shuffle(kinds)
    drawn += zip(kinds, _dealt(chance, targets, len(kinds)), strict=True)
    chance.shuffle(drawn)
    return drawn


def _share(kills: int, one_in: int) -> int:
    return max(1, kills // one_in) if kills >= _SMALLEST_MIX else 0


def _dealt(chance: random.Random, items: Sequence[Item], count: int) -> list[Item]:
    """``count`` items from shuffled decks, so that none is left out by chance."""
    dealt: list[Item] = []
    while len(dealt) < count:
        dealt += chance.sample(items, len(items))
    return dealt[:count]


def _pauses(chance: random.Random, total_seconds: float) -> Callable[[int], list[float]]:
    """Makes that many pauses, uneven, that add up to ``total_seconds``."""

    def make(count: int) -> list[float]:
        weights = [chance.uniform(0.2, 1.8) for _ in range(count)]
        return [weight * total_seconds / sum(weights) for weight in weights]

    return make


def _with_pauses(
    drawn: list[tuple[FaultKind, str]], pauses: Callable[[int], list[float]], chance: random.Random
) -> list[Fault]:
    return [
        Fault(kind, target, pause, chance.uniform(*FREEZE_SECONDS) if kind is FaultKind.FREEZE else 0.0)
        for (kind, target), pause in zip(drawn, pauses(len(drawn)), strict=True)
    ]


def _jobs(seed: int, count: int, minutes: float, origins: int) -> list[PlannedJob]:
    """A generator of their own: another number of kills leaves the jobs of a seed as they were."""
    chance = random.Random(f"{seed}/jobs")
    pauses = _pauses(chance, minutes * 60)(count)
    return [_job(chance, number, pause, origins) for number, pause in enumerate(pauses, start=1)]


def _job(chance: random.Random, number: int, pause: float, origins: int) -> PlannedJob:
    count = min(chance.choice(_REPOSITORIES), MOST_REPOSITORIES, origins)
    return PlannedJob(
        number=number,
        origins=tuple(chance.sample(range(origins), count)),
        pause_seconds=pause,
        is_sent_twice=chance.random() < 0.2,
        is_watched=chance.random() < 0.2,
        cancelled=chance.choices((None, "job", "run"), weights=(76, 12, 12))[0],
        cancelled_run=chance.randrange(MOST_REPOSITORIES),
        cancel_after_seconds=chance.uniform(0, LONGEST_CANCEL_DELAY_SECONDS),
    )
