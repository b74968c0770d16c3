"""Which agent gets which run: each the next one that has the largest share of its places free. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace


@dataclass(frozen=True)
class Place:
    """An agent with room: ``free`` of its ``capacity`` places, both above 0. ``beat``: its last heartbeat."""

    name: str
    capacity: int
    free: int
    beat: int = 0


def spread(agents: Sequence[Place], runs: int) -> list[str]:
    """The names of the agents that so many runs go to, in turn. Raises ``ValueError`` where there is less room."""
    if sum(agent.free for agent in agents) < runs:
        raise ValueError(f"{runs} runs are more than the agents have room for")
    # The agent whose share is largest first; of equal ones the first by name, so that the same is decided again.
    heap = [(-agent.free / agent.capacity, agent.name, agent.free, agent.capacity) for agent in agents]
    heapify(heap)
    names = []
    for _ in range(runs):
        _, name, free, capacity = heap[0]
        heapreplace(heap, (-(free - 1) / capacity, name, free - 1, capacity))
        names.append(name)
    return names
