"""The rows of the table in which ours stands beside the same runs of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.contenders import Contender
from tests.bench.kinds import OURS, PGQUEUER, PGQUEUER_TUNED
from tests.bench.measure import Result


def rows(
    name: str, what: str, contenders: Sequence[Contender], seconds: Mapping[str, Sequence[float]], jobs: int
) -> list[Result]:
    """Ours beside pgqueuer: as it comes, and with the batches that make the best of no-op tasks.

    ``seconds``: what ``jobs`` took each, in each of its rounds.
    """
    rates = {contender: jobs * len(taken) / sum(taken) for contender, taken in seconds.items()}
    cpu = cpu_per_thousand(contenders, {contender: jobs * len(taken) for contender, taken in seconds.items()})
    return [
        Result(
            name=row,
            what=what,
            figure=rates[OURS.name],
            unit="/s",
            compared_with=f"{beside}, no-op task, one worker, same servers",
            baseline=rates[peer.name],
            goal="≥ pgqueuer",
            met=rates[OURS.name] >= rates[peer.name],
            details=rates if peer is PGQUEUER else {},
            cpu=cpu if peer is PGQUEUER else {},
        )
        for row, peer, beside in (
            (name, PGQUEUER, "pgqueuer as it comes (batches of 10)"),
            (f"{name}_tuned", PGQUEUER_TUNED, "pgqueuer tuned (batches of 50)"),
        )
    ]


def cpu_per_thousand(contenders: Sequence[Contender], jobs: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """What each contender's processes used, for a result. ``jobs``: how many each had."""
    return {
        contender.kind.name: {
            name: seconds * 1_000_000 / jobs[contender.kind.name] for name, seconds in contender.cpu.items()
        }
        for contender in contenders
    }
