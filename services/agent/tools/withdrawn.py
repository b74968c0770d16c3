"""Stands in for a tool that a run's requests offer since they began, and that the run may not use any more."""

from dataclasses import replace
from typing import Any

from services.agent.tools.calls import Outcome, ToolError, ToolSpec


class WithdrawnTool:
    """``spec``: as it was offered. What the tool did, if a break came upon it, is taken for the worst."""

    def __init__(self, spec: ToolSpec) -> None:
        self.spec = replace(spec, writes=True, outside=True)

    def subject(self, arguments: Any) -> str:  # noqa: ARG002 - whatever was to be done, it is not
        return self.spec.name

    async def run(self, arguments: Any) -> Outcome:  # noqa: ARG002
        raise ToolError(
            f"{self.spec.name} cannot be used any more: the settings of this job or its client have changed since it "
            "was offered. Do the work without it."
        )
