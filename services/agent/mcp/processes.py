"""What is needed of the sandbox to run a server in it: a process with pipes that ends with its context."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeVar

Limits_contra = TypeVar("Limits_contra", contravariant=True)


class Process(Protocol):
    @property
    def stdin(self) -> asyncio.StreamWriter: ...

    @property
    def stdout(self) -> asyncio.StreamReader: ...


class Sandbox(Protocol[Limits_contra]):
    def open(
        self,
        argv: Sequence[str],
        *,
        worktree: Path,
        limits: Limits_contra,
        network: bool,
        environment: Mapping[str, str],
        writes: bool,
    ) -> AbstractAsyncContextManager[Process]:
        """Start ``argv``; leaving the context ends it and all it started. Raises ``OSError`` where it cannot."""
        ...
