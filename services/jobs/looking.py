"""What admission saw when it looked: who waits, and the room; and what is left once some was given away. Pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from services.jobs.fairness import Allocation, Candidate, Flow, Load, allocate
from services.jobs.limits import Limits
from services.jobs.placing import Place

_LASTS = timedelta(seconds=0.5)


@dataclass(frozen=True)
class Seen:
    """As it was after so many ``admissions``. Ends add to the room; what takes of it is seen when it is given away."""

    admissions: int
    free: int
    """Places of agents, within the fleet's limit."""
    places: Sequence[Place]
    load: Load
    limits: Limits
    candidates: Sequence[Candidate] = ()
    clocks: Mapping[Flow, int] = field(default_factory=dict)
    at: float = field(default_factory=time.monotonic)

    @property
    def is_fresh(self) -> bool:
        """Whether nobody whose bell was lost can have waited for long."""
        return time.monotonic() - self.at < _LASTS.total_seconds()

    def shared(self, *, most: int) -> Allocation:
        """Who gets the room, for the next ``most`` runs."""
        return allocate(
            self.candidates, load=self.load, limits=self.limits, free=min(self.free, most), clocks=self.clocks
        )

    def less(self, given: Allocation, by_agent: Mapping[str, int]) -> Seen:
        """What is left of it after all of this was given away, so many runs to each agent."""
        candidates = []
        by_queue, by_client = Counter(dict(self.load.by_queue)), Counter(dict(self.load.by_client))
        for each in self.candidates:
            if (runs := given.runs.get(each.job_id, 0)) == 0:
                candidates.append(each)
                continue
            by_queue[each.queue] += runs
            by_client[each.client_id] += runs
            if runs < each.available:
                tag = given.tags[each.job_id]
                candidates.append(each._replace(tag=tag, available=each.available - runs))
        places = [replace(place, free=place.free - by_agent.get(place.name, 0)) for place in self.places]
        return replace(
            self,
            admissions=self.admissions + 1,
            free=self.free - sum(given.runs.values()),
            places=[place for place in places if place.free > 0],
            load=Load(by_queue, by_client),
            candidates=candidates,
            clocks={**self.clocks, **given.clocks},
        )
