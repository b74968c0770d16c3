"""What fields of the published APIs' bodies have in common: times as they are written, and what forms send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, PlainSerializer


def _to_the_second(time: datetime) -> str:
    """As in `2025-03-24T12:00:00Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _blank_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Moment: TypeAlias = Annotated[datetime, PlainSerializer(_to_the_second, return_type=str)]
OrBlank = BeforeValidator(_blank_is_none)
"""An optional text that is empty, as forms send it, was not given."""
