"""The scheduler's settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from services.runtime.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    max_runs: Annotated[int, Field(ge=1, le=10_000)] = 1_024
    """Most runs that hold a slot at once, in the whole fleet and per queue; the agents' capacity bounds it too."""
