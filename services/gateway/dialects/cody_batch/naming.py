"""What Cody Batch calls jobs, threads and repositories, and where a job keeps the names that it was given. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

JOB_PREFIX: Final = "job-"
THREAD_PREFIX: Final = "thread-"
METADATA_CHARACTERS: Final = 2_000
"""Of one value of a job's metadata."""
NAMES_KEY: Final = "repositories"
_JOB_ID: Final = re.compile(JOB_PREFIX + r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII | re.IGNORECASE)
_SEPARATOR: Final = "\n"
_SHOWN_PARTS: Final = 2


def job_name(job_id: UUID) -> str:
    return f"{JOB_PREFIX}{job_id}"


def job_id_of(name: str) -> UUID | None:
    """None where it is the id of no job."""
    found = _JOB_ID.fullmatch(name)
    return UUID(found[1]) if found else None


def thread_name(run_id: UUID) -> str:
    return f"{THREAD_PREFIX}{run_id}"


def kept_names(names: Sequence[str]) -> dict[str, str]:
    """Metadata that holds ``names``, none of which has a line's end in it."""
    text = _SEPARATOR.join(names)
    places = range(0, len(text), METADATA_CHARACTERS)
    return {f"{NAMES_KEY}.{at // METADATA_CHARACTERS:02}": text[at : at + METADATA_CHARACTERS] for at in places}


def names_in(metadata: Mapping[str, str]) -> list[str]:
    """The names that ``kept_names`` put there, in their order; none where a job was not made by this API."""
    parts = [metadata[key] for key in sorted(metadata) if re.fullmatch(rf"{NAMES_KEY}\.\d\d", key)]
    return "".join(parts).split(_SEPARATOR) if parts else []


def name_of(url: str) -> str:
    """The last two parts of a repository's address, mostly `owner/name`."""
    path = re.sub(r"^[a-z+]+://[^/]*|^[\w.-]+@[^:]*:", "", url).rstrip("/").removesuffix(".git")
    return "/".join([part for part in path.split("/") if part][-_SHOWN_PARTS:]) or url
