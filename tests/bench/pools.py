"""Pools of bare connections, for floors and peers: as fast as asyncpg is, so that nobody is made to look slow."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


def new_pool(url: str, size: int) -> Pool:
    """A pool of ``size`` open connections, to be entered; nothing is reset when one is given back, as in ours."""
    return asyncpg.create_pool(url, min_size=size, max_size=size, reset=_leave_as_it_is)


async def _leave_as_it_is(_: asyncpg.Connection[asyncpg.Record]) -> None:
    """A reset would be a round trip a statement, and nobody here leaves anything behind."""
