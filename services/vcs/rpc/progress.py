"""Streams how far a long piece of work has come, then what came of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from services.contracts.v1 import vcs_pb2
from services.vcs.git.runner import Progress

Result = TypeVar("Result")


async def followed(
    work: Callable[[Progress], Coroutine[Any, Any, Result]],
) -> AsyncGenerator[vcs_pb2.PrepareProgress | Result, None]:
    """Progress, then the result, which is the last. Closed before that, the work is cancelled and has ended."""
    updates: asyncio.Queue[vcs_pb2.PrepareProgress | None] = asyncio.Queue()

    def tell(phase: str, percent: int) -> None:
        updates.put_nowait(vcs_pb2.PrepareProgress(phase=phase, percent=percent))

    task = asyncio.create_task(work(tell))
    task.add_done_callback(lambda _: updates.put_nowait(None))
    try:
        while (update := await updates.get()) is not None:
            yield update
        yield await task
    finally:
        task.cancel()
        await asyncio.wait([task])
