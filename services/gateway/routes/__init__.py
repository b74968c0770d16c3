"""The native API: each module declares the operations on one thing, with their handlers."""

from services.gateway.operations import Operation
from services.gateway.routes import changesets, events, jobs, limits, runs, service

OPERATIONS: tuple[Operation, ...] = (
    *jobs.OPERATIONS,
    *events.OPERATIONS,
    *runs.OPERATIONS,
    *changesets.OPERATIONS,
    *limits.OPERATIONS,
    *service.OPERATIONS,
)
