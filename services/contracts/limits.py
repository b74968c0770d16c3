"""The models of the limits on how much may run and wait at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from services.contracts.model import Both

Slots = Annotated[int, Field(ge=0, le=100_000)]


class NamedLimits(Both):
    default: Slots | None = Field(None, description="for each that is not named; null: no limit")
    by_name: Annotated[dict[str, Slots], Field(max_length=10_000)] = Field(default_factory=dict)


class QueueLimits(Both):
    code: Slots | None = None
    task: Slots | None = None
    review: Slots | None = None


class Limits(Both):
    """How many runs may hold a slot at once. What is null or missing has no limit of its own."""

    fleet: Slots | None = Field(None, description="in all; the agents' capacity bounds it too")
    queues: QueueLimits = Field(default_factory=lambda: QueueLimits.model_validate({}))
    client: NamedLimits = Field(default_factory=lambda: NamedLimits.model_validate({}), description="by client's name")
    repository: NamedLimits = Field(
        default_factory=lambda: NamedLimits.model_validate({}), description="by URL, as jobs give it"
    )
    queued_jobs: NamedLimits = Field(
        default_factory=lambda: NamedLimits.model_validate({}),
        description="how many jobs of a client may be queued at once, by client's name; more are refused",
    )
