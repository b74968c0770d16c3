"""The native API: each module declares the operations on one thing, with their handlers."""

from services.gateway.operations import Operation
from services.gateway.routes import (
    budgets,
    changesets,
    clients,
    discovery,
    events,
    jobs,
    limits,
    repositories,
    runs,
    service,
    settings,
    usage,
)

OPERATIONS: tuple[Operation, ...] = (
    *jobs.OPERATIONS,
    *events.OPERATIONS,
    *runs.OPERATIONS,
    *changesets.OPERATIONS,
    # Before the one that takes an id in the same place.
    *discovery.OPERATIONS,
    *repositories.OPERATIONS,
    *clients.OPERATIONS,
    *limits.OPERATIONS,
    *budgets.OPERATIONS,
    *usage.OPERATIONS,
    *settings.OPERATIONS,
    *service.OPERATIONS,
)
