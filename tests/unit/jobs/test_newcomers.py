"""What a bell says of the job that it is rung for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from services.contracts.rest import JobRequest
from services.contracts.words import Queue
from services.jobs.fairness import Candidate
from services.jobs.models import Client
from services.jobs.newcomers import bell_for, heard
from services.jobs.submission import NewJob
from services.jobs.unit import Rung

CLIENT = Client(UUID(int=7), "a client")
REPOSITORIES = [{"url": f"https://a/{n}"} for n in range(3)]


def job(**fields: Any) -> NewJob:
    wanted = {"kind": "code", "prompt": "x", "repositories": REPOSITORIES, **fields}
    return NewJob.of(CLIENT, JobRequest.model_validate(wanted), key=None, body=b"")


@pytest.mark.parametrize("options", [{}, {"maxParallel": 3}])
def test_all_that_admission_has_to_know_is_heard(options: dict[str, int]) -> None:
    submitted = job(priority=3, options=options)
    expected = Candidate(submitted.id, CLIENT.id, CLIENT.name, Queue.CODE, priority=0, tag=0, available=3)
    assert heard(bell_for(submitted)) == (Rung.SLOTS, expected)


@pytest.mark.parametrize("fields", [{"notBefore": "2099-01-31T12:30:00Z"}, {"options": {"maxParallel": 2}}])
def test_of_one_that_may_not_begin_as_a_whole_nothing_is_said(fields: dict[str, Any]) -> None:
    assert heard(bell_for(job(**fields))) == (Rung.SLOTS, None)


@pytest.mark.parametrize(
    ("data", "rung"),
    [
        (b"slots", Rung.SLOTS),
        (b"slots\n", Rung.SLOTS),
        (b"slots\nno protobuf", Rung.SLOTS),
        (b"slots\n\x0a\x02no", Rung.SLOTS),
        (b"events", Rung.EVENTS),
        (b"", Rung.EVENTS),
        (b"what comes later", Rung.EVENTS),
    ],
)
def test_what_says_nothing_of_a_job_is_a_bell_like_any_other(data: bytes, rung: Rung) -> None:
    assert heard(data) == (rung, None)
