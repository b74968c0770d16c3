"""Who gets the free slots: priority first, then the client with the fewest, then each job in its turn, then age. Pure.

Jobs of one client take turns as in start-time fair queueing (Goyal, Vin, Cheng 1996): a job carries the tag of its
next run; each slot goes to the lowest tag and moves that job's tag on by one; a job that comes, or was not ready for
a while, begins at the clock, which is the highest tag that got a slot so far. So a job of a thousand runs goes in turns
with a job of one, and neither waits for the other to end.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from services.contracts.words import Queue
from services.jobs.limits import Limits

Flow = tuple[Queue, UUID]
"""What has a clock: one queue of one client."""


class Candidate(NamedTuple):
    """A job with queued runs that may be looked at now. There are so many that a dataclass would take long."""

    job_id: UUID
    client_id: UUID
    client: str
    queue: Queue
    priority: int
    tag: int
    available: int
    """How many of its runs may start at most: those queued, within its maxParallel."""


@dataclass(frozen=True)
class Load:
    """How many runs hold a slot now."""

    by_queue: Mapping[Queue, int]
    by_client: Mapping[UUID, int]


@dataclass(frozen=True)
class Allocation:
    """What came of sharing out the slots."""

    runs: dict[UUID, int] = field(default_factory=dict)
    """How many of each job's runs are to start."""
    tags: dict[UUID, int] = field(default_factory=dict)
    """Each of these jobs' new tag."""
    clocks: dict[Flow, int] = field(default_factory=dict)


def allocate(
    candidates: Iterable[Candidate], *, free: int, load: Load, limits: Limits, clocks: Mapping[Flow, int]
) -> Allocation:
    """Share out ``free`` slots, within the ``limits`` of queues and clients.

    ``load``: what is held now. A flow that is missing in ``clocks`` stands at 0.
    """
    return _Sharing(load, limits, free, clocks).share(candidates)


class _Sharing:
    def __init__(self, load: Load, limits: Limits, free: int, clocks: Mapping[Flow, int]) -> None:
        self._limits = limits
        self._free = free
        self._by_queue = Counter(dict(load.by_queue))
        self._by_client = Counter(dict(load.by_client))
        self._clocks = clocks
        self._result = Allocation()

    def share(self, candidates: Iterable[Candidate]) -> Allocation:
        flows: defaultdict[Flow, list[_Waiting]] = defaultdict(list)
        for one in candidates:
            flow = (one.queue, one.client_id)
            tag = max(one.tag, self._clocks.get(flow, 0))
            flows[flow].append(_Waiting(-one.priority, tag, one.job_id, one, one.available))
        for waiting in flows.values():
            heapq.heapify(waiting)
        # Each flow stands here once, by its best job; its place is looked at again when it comes up.
        order = [self._place(flow, waiting) for flow, waiting in flows.items()]
        heapq.heapify(order)
        while order and self._free > 0:
            place = heapq.heappop(order)
            *_, flow = place
            waiting = flows[flow]
            if not self._has_room(waiting[0].job):
                continue
            if (now := self._place(flow, waiting)) != place:
                heapq.heappush(order, now)
                continue
            self._take(flow, waiting)
            if waiting:
                heapq.heappush(order, self._place(flow, waiting))
        return self._result

    def _place(self, flow: Flow, waiting: list[_Waiting]) -> tuple[int, int, UUID, Flow]:
        """The highest priority, then the client with the fewest runs, then the oldest job."""
        best = waiting[0]
        return (best.descending, self._by_client[flow[1]], best.job_id, flow)

    def _has_room(self, job: Candidate) -> bool:
        in_queue = self._limits.queues.get(job.queue)
        of_client = self._limits.of_client(job.client)
        return (in_queue is None or self._by_queue[job.queue] < in_queue) and (
            of_client is None or self._by_client[job.client_id] < of_client
        )

    def _take(self, flow: Flow, waiting: list[_Waiting]) -> None:
        best = heapq.heappop(waiting)
        job_id = best.job_id
        self._free -= 1
        self._by_queue[flow[0]] += 1
        self._by_client[flow[1]] += 1
        self._result.runs[job_id] = self._result.runs.get(job_id, 0) + 1
        self._result.tags[job_id] = best.tag + 1
        self._result.clocks[flow] = max(best.tag, self._result.clocks.get(flow, self._clocks.get(flow, 0)))
        if best.left > 1:
            heapq.heappush(waiting, _Waiting(best.descending, best.tag + 1, job_id, best.job, best.left - 1))


class _Waiting(NamedTuple):
    """A job in its client's order: by priority, then turn, then age. No two have one id, so no job is compared."""

    descending: int
    """The priority, negated."""
    tag: int
    job_id: UUID
    job: Candidate
    left: int
