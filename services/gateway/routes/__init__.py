"""The native API: each module declares the operations on one thing, with their handlers."""

from services.gateway.operations import Operation
from services.gateway.routes import budgets, changesets, events, jobs, limits, runs, service, settings, usage

OPERATIONS: tuple[Operation, ...] = (
    *jobs.OPERATIONS,
    *events.OPERATIONS,
    *runs.OPERATIONS,
    *changesets.OPERATIONS,
    *limits.OPERATIONS,
    *budgets.OPERATIONS,
    *usage.OPERATIONS,
    *settings.OPERATIONS,
    *service.OPERATIONS,
)
