"""Texts that a job gives for its commits and pull requests, with what is known of the run filled in. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from uuid import UUID

SUBJECT_CHARACTERS = 72
_PLACE = re.compile(r"\{([a-z]+)\}")


def fill(template: str, values: Mapping[str, str]) -> str:
    """``template`` with each `{name}` of ``values`` in place; other braces stay as they are."""
    return _PLACE.sub(lambda found: values.get(found[1], found[0]), template)


def values_of(
    *, name: str | None, prompt: str, repository: str | None, branch: str | None, job_id: UUID, run_id: UUID
) -> dict[str, str]:
    """What every template may name."""
    return {
        "name": name or subject_of(prompt),
        "prompt": subject_of(prompt),
        "repository": repository or "",
        "branch": branch or "",
        "job": str(job_id),
        "run": str(run_id),
    }


def subject_of(text: str) -> str:
    """The first line, of at most 72 characters."""
    first_line = next(iter(text.strip().splitlines()), "").strip()
    return first_line if len(first_line) <= SUBJECT_CHARACTERS else first_line[: SUBJECT_CHARACTERS - 1] + "…"
