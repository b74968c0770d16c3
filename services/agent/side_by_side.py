"""Two things at once, of which neither goes on alone: where one fails or the caller is cancelled, both are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


async def side_by_side(first: Coroutine[Any, Any, First], second: Coroutine[Any, Any, Second]) -> tuple[First, Second]:
    """What both come to. Where one fails the other is cancelled, and that error raised; of two, the second's."""
    one, other = asyncio.create_task(first), asyncio.create_task(second)
    try:
        await asyncio.wait([one, other], return_when=asyncio.FIRST_EXCEPTION)
        for task in (other, one):
            if task.done():
                task.result()
        return one.result(), other.result()
    finally:
        await finish(one, other)


async def finish(*tasks: asyncio.Task[Any] | None) -> None:
    """End ``tasks``, whatever comes of them; None: there is none."""
    left = [task for task in tasks if task is not None]
    for task in left:
        task.cancel()
    if left:
        await asyncio.gather(*left, return_exceptions=True)
