"""Which dialects this process serves, as its environment has it. The log says which, and why not the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.gateway.dialects import codebot, cody_batch, orchestrator, worker
from services.gateway.dialects.dialect import Dialect

DIALECTS: Final[tuple[Callable[[str], Dialect | None], ...]] = (
    codebot.from_environment,
    cody_batch.from_environment,
    worker.from_environment,
    orchestrator.from_environment,
)


def chosen(host: str) -> list[Dialect]:
    """``host``: where the gateway listens. A wrong setting is named and ends the process with 2."""
    return [dialect for each in DIALECTS if (dialect := each(host)) is not None]
