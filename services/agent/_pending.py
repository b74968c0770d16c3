from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

Sandbox = Any
RunCommand: Any = None
TESTS_FAILED_MARK = "tests"
Verdict = Any
Verifier: Any = None
detect: Any = lambda worktree: None
prompt_of: Any = None


@dataclass
class McpTools:
    tools: Sequence[Any] = ()
    problems: Sequence[str] = ()


def Limits() -> Any: ...


@asynccontextmanager
async def connected(*_: Any, **__: Any) -> AsyncIterator[McpTools]:
    yield McpTools()


class Outputs:
    def __init__(self, kept: Any = None) -> None: ...
    def take_new(self) -> dict[str, bytes]:
        return {}
