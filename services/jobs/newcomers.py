"""A bell that also says which job was submitted: where nobody waits, admission can begin with it without a look."""

from __future__ import annotations

from uuid import UUID

from google.protobuf.message import DecodeError

from services.contracts.v1.commands_pb2 import NewJob as Told
from services.contracts.words import Queue
from services.jobs.fairness import Candidate
from services.jobs.submission import NewJob
from services.jobs.unit import Rung

_SLOTS = Rung.SLOTS.encode() + b"\n"


def bell_for(job: NewJob) -> bytes:
    """What is rung for ``job``, which was just stored."""
    most = job.request.options.max_parallel
    if job.request.not_before is not None or (most is not None and most < len(job.runs)):
        return Rung.SLOTS.encode()  # not all of it may begin now
    told = Told(
        job_id=str(job.id),
        client_id=str(job.client.id),
        client=job.client.name,
        queue=job.queue.value,
        runs=len(job.runs),
    )
    return _SLOTS + told.SerializeToString()


def heard(data: bytes) -> tuple[Rung, Candidate | None]:
    """What a bell says; where it says nothing that is known, that there are events."""
    if data == Rung.SLOTS.encode():
        return Rung.SLOTS, None
    if not data.startswith(_SLOTS):
        return Rung.EVENTS, None
    try:
        told = Told.FromString(data[len(_SLOTS) :])
        newcomer = Candidate(
            job_id=UUID(told.job_id),
            client_id=UUID(told.client_id),
            client=told.client,
            queue=Queue(told.queue),
            priority=0,
            tag=0,
            available=told.runs,
        )
    except (DecodeError, ValueError):
        return Rung.SLOTS, None
    return Rung.SLOTS, newcomer if newcomer.available else None
