"""What every measure takes and gives. One module a measure: a ``NAME`` and a ``measure``."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Bench:
    """What a measure may use. ``scratch``: a folder that goes when the run ends. ``quick``: fewer samples."""

    scratch: Path
    quick: bool
    say: Callable[[str], None]

    def samples(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def folder(self, name: str) -> Path:
        """A new folder; PostgreSQL, which may run as another account, can pass through it."""
        folder = self.scratch / name
        folder.mkdir(mode=0o711)
        return folder


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measure's figure beside what was measured with it in the same run; both in ``unit``."""

    name: str
    what: str
    figure: float
    unit: str
    compared_with: str
    baseline: float
    goal: str
    met: bool
    details: dict[str, float] = field(default_factory=dict)
    """Further figures by name, in ``unit`` unless the name says otherwise."""
    cpu: dict[str, dict[str, float]] = field(default_factory=dict)
    """Processor milliseconds per 1,000 jobs, by whose jobs they were and by process."""

    @property
    def ratio(self) -> float:
        return self.figure / self.baseline


class JobFailedError(Exception):
    """A job did not do what it was asked: there is nothing to measure."""


class Measure(Protocol):
    NAME: str

    async def measure(self, bench: Bench) -> Result | Sequence[Result]:
        """One row of the table, or several."""
        ...


def percentile(samples: Sequence[float], percent: int) -> float:
    """The smallest sample that ``percent`` of them do not exceed: always one that was seen."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def median_ms(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1000
