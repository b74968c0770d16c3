"""Variables of a published document that mean nothing here: accepted, and named once in the log without values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from services.runtime.telemetry import logger

log = logger("gateway.dialects")


def tell_unused(dialect: str, *patterns: str, source: Mapping[str, str] = os.environ) -> None:
    """Say which variables are set and not used. ``patterns``: names, or with `*` at the end their beginnings."""
    if names := unused_among(patterns, source):
        log.info("variables that are set, but not used here", dialect=dialect, variables=names)


def unused_among(patterns: Sequence[str], source: Mapping[str, str]) -> list[str]:
    """Those of ``source`` that fit, by name; an empty one counts as not set."""
    return sorted(name for name, value in source.items() if value and any(_fits(name, each) for each in patterns))


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
