"""What this process has answered, counted: totals, routes, statuses and times. Bounded by how many routes there are."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus

from services.gateway.dialects.worker.models import now

NO_ROUTE = "unmatched"
"""Stands for all paths at which there is nothing."""


@dataclass
class Measures:
    """A request is counted once its answer begins, so the sums over routes and statuses are the total."""

    started_at: datetime = field(default_factory=now)
    total: int = 0
    by_route: Counter[str] = field(default_factory=Counter)
    by_status: Counter[str] = field(default_factory=Counter)
    _milliseconds: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def count(self, route: str, status: int, *, milliseconds: float) -> int:
        """How many there are with this one."""
        self.total += 1
        self.by_route[route] += 1
        self.by_status[str(status)] += 1
        self._milliseconds += milliseconds
        return self.total

    @property
    def uptime_milliseconds(self) -> int:
        return int((time.monotonic() - self._started) * 1_000)

    @property
    def average_milliseconds(self) -> float:
        """Until an answer begins: a stream may go on for an hour. 0 before the first."""
        return round(self._milliseconds / self.total, 2) if self.total else 0.0

    @property
    def error_rate(self) -> float:
        """The share of answers that tell of a fault of the server's, 5xx; what is wrong with a request is none."""
        failed = sum(
            count for status, count in self.by_status.items() if int(status) >= HTTPStatus.INTERNAL_SERVER_ERROR
        )
        return round(failed / self.total, 4) if self.total else 0.0

    @property
    def success_rate(self) -> float:
        return round(1 - self.error_rate, 4)
