"""Rings for events are merged, rings for slots never wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from services.jobs.bells import Bell
from services.jobs.unit import Rung

DEADLINE_SECONDS = 30


class Heard:
    def __init__(self) -> None:
        self.rungs: list[Rung] = []
        self.changed = asyncio.Event()

    async def __call__(self, rung: Rung) -> None:
        self.rungs.append(rung)
        self.changed.set()


async def test_the_first_is_rung_at_once_and_the_rest_of_a_moment_together() -> None:
    heard = Heard()
    bell = Bell(heard, every=timedelta(seconds=0.05))
    await bell(Rung.EVENTS)
    assert heard.rungs == [Rung.EVENTS]
    heard.changed.clear()
    for _ in range(50):
        await bell(Rung.EVENTS)
    assert heard.rungs == [Rung.EVENTS]
    async with asyncio.timeout(DEADLINE_SECONDS):
        await heard.changed.wait()
    assert heard.rungs == [Rung.EVENTS, Rung.EVENTS]


async def test_a_free_slot_is_told_at_once() -> None:
    heard = Heard()
    bell = Bell(heard, every=timedelta(hours=1))
    for _ in range(3):
        await bell(Rung.SLOTS)
        await bell(Rung.EVENTS)
    assert heard.rungs == [Rung.SLOTS] * 3


async def test_after_a_while_it_is_rung_at_once_again() -> None:
    heard = Heard()
    bell = Bell(heard, every=timedelta())
    for _ in range(3):
        await bell(Rung.EVENTS)
    assert heard.rungs == [Rung.EVENTS] * 3
