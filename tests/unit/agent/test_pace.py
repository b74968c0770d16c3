"""Turns at a model service that is short, against a line as Postgres keeps it and a clock that only a test moves."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Iterator
from datetime import timedelta
from itertools import count, pairwise
from typing import cast

import pytest
from pydantic import SecretStr

from services.agent.model import Endpoint, PostponedError
from services.agent.pace import FleetPace
from services.jobs.pacing import Line
from services.runtime.jetstream import Bus
from services.runtime.postgres import StoreUnavailableError

ENDPOINT = Endpoint(SecretStr("a key"), "http://model.invalid")
SLOPE = math.log(2) / 10
"""The rate doubles every ten seconds."""


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers: Iterator[int] = count()

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self.now + seconds, next(self._numbers), waking))
        await waking

    async def forward(self, seconds: float) -> None:
        """Let so much time pass, and all happen that is due in it."""
        end = self.now + seconds
        await settled()
        while self._sleeping and self._sleeping[0][0] <= end:
            self.now, _, waking = heapq.heappop(self._sleeping)
            waking.set_result(None)
            await settled()
        self.now = end


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Store:
    """The line of one scope; as services/jobs/sql/pacing.sql has it."""

    def __init__(self, clock: Clock, *, per_second: float) -> None:
        self.per_second = per_second
        self.reached, self.taken = 0.0, 0
        self.is_short = True
        self.is_away = False
        self.looks: list[float] = []
        self._clock = clock
        self._at = clock.now

    async def throttle(self, scope: str, asked: timedelta) -> None:
        self.per_second /= 2

    async def look(self, scope: str, places: int) -> Line | None:
        self.looks.append(self._clock.now)
        if self.is_away:
            raise StoreUnavailableError("away")
        if not self.is_short:
            return None
        grown = math.exp(SLOPE * (self._clock.now - self._at))
        self.reached = min(self.taken + 2, self.reached + self.per_second / SLOPE * (grown - 1))
        self.per_second, self._at = self.per_second * grown, self._clock.now
        self.taken += places
        return Line(self.taken, self.reached, self.per_second, timedelta())


class NoBus:
    async def ring(self, subject: str, data: bytes = b"") -> None:
        return


class Fleet:
    """Some processes, and when each of their askers got its turn."""

    def __init__(self, *, processes: int = 1, per_second: float = 0.1) -> None:
        self.clock = Clock()
        self.store = Store(self.clock, per_second=per_second)
        bus = cast("Bus", NoBus())
        self.paces = [FleetPace(self.store, bus, clock=self.clock, pause=self.clock.pause) for _ in range(processes)]
        self.turns: dict[str, float] = {}
        self.sent_away: dict[str, PostponedError] = {}

    async def shortage(self) -> None:
        for pace in self.paces:
            await pace.throttled(ENDPOINT, timedelta())

    def ask(self, name: str, *, process: int = 0, seconds_left: float | None = None) -> asyncio.Task[None]:
        until = None if seconds_left is None else self.clock.now + seconds_left

        async def asked() -> None:
            try:
                await self.paces[process].permit(ENDPOINT, until=until)
            except PostponedError as error:
                self.sent_away[name] = error
            else:
                self.turns[name] = self.clock.now

        return asyncio.create_task(asked())


async def test_after_a_short_overload_all_have_their_turns_as_the_rate_recovers_in_the_order_they_came():
    """At the rate of the moment the last of them would wait for 50 minutes; ADR 11 has the arithmetic."""
    fleet = Fleet(processes=3, per_second=0.8)
    await fleet.shortage()
    began = fleet.clock.now
    asking = []
    for moment in range(7):
        asking += [fleet.ask(f"{moment} {number}", process=number % 3) for number in range(43)]
        await fleet.clock.forward(1)
        fleet.store.per_second = 0.1
    await fleet.clock.forward(60)
    newcomer = fleet.ask("newcomer", process=1)
    await fleet.clock.forward(30)

    assert all(each.done() for each in (*asking, newcomer))
    assert fleet.sent_away == {}
    assert max(fleet.turns.values()) - began < 7 + 78
    groups = [[fleet.turns[f"{moment} {number}"] for number in range(43)] for moment in range(7)]
    groups.append([fleet.turns["newcomer"]])
    assert all(max(earlier) <= min(later) + 1 for earlier, later in pairwise(groups)), "a second between two looks"
    assert len(fleet.store.looks) <= 3 * 2 * (fleet.clock.now - began)


async def test_who_asks_while_others_wait_makes_no_query_of_its_own():
    fleet = Fleet(per_second=0.001)
    await fleet.shortage()
    for number in range(200):
        fleet.ask(f"{number}")
        await fleet.clock.forward(0.001)
    assert len(fleet.store.looks) <= 2


async def test_a_turn_that_would_come_after_the_end_of_a_runs_time_is_not_waited_for():
    fleet = Fleet()
    await fleet.shortage()
    for number in range(300):
        fleet.ask(f"{number}")
    fleet.ask("in a hurry", seconds_left=30)
    fleet.ask("in time", seconds_left=1_800)
    await fleet.clock.forward(1)
    assert list(fleet.sent_away) == ["in a hurry"]
    assert timedelta(seconds=70) < fleet.sent_away["in a hurry"].delay < timedelta(seconds=90), "not at the rate of now"
    await fleet.clock.forward(90)
    assert "in time" in fleet.turns


async def test_who_is_sent_away_at_once_leaves_no_place_behind():
    """Else whoever comes next would wait behind nobody."""
    fleet = Fleet()
    await fleet.shortage()
    for number in range(300):
        fleet.ask(f"{number}", seconds_left=8)
    await fleet.clock.forward(1)
    assert len(fleet.sent_away) == 300
    fleet.ask("newcomer")
    await fleet.clock.forward(1)
    for number in range(300, 600):
        fleet.ask(f"{number}", seconds_left=8)
    await fleet.clock.forward(15)
    assert len(fleet.sent_away) == 600
    assert fleet.turns.keys() == {"newcomer"}
    assert fleet.store.taken <= 2


async def test_nobody_keeps_its_slot_for_over_five_minutes():
    """The service goes on refusing: what was reckoned with does not come."""
    fleet = Fleet()
    await fleet.shortage()
    asking = [fleet.ask(f"{number}") for number in range(100)]
    for _ in range(301):
        await fleet.clock.forward(1)
        fleet.store.per_second = 0.1
    assert all(each.done() for each in asking)
    assert len(fleet.turns) == pytest.approx(30, abs=3)
    assert set(fleet.turns) == {f"{number}" for number in range(len(fleet.turns))}, "the first that came"
    assert all(error.delay < timedelta(minutes=2) for error in fleet.sent_away.values())


async def test_the_place_of_one_that_leaves_is_for_who_is_behind_it():
    fleet = Fleet(per_second=0.2)  # half of that: places are due after 7.6, 12.5 and 16.2 seconds
    await fleet.shortage()
    first = fleet.ask("first")
    fleet.ask("second")
    await fleet.clock.forward(5)
    first.cancel()
    fleet.ask("third")
    await fleet.clock.forward(4)
    assert fleet.turns.keys() == {"second"}
    await fleet.clock.forward(5)
    assert fleet.turns.keys() == {"second", "third"}
    assert fleet.store.taken == 2


@pytest.mark.parametrize("end", ["is_away", "no longer short"])
async def test_without_a_line_everybody_goes(end: str):
    fleet = Fleet(per_second=0.001)
    await fleet.shortage()
    for number in range(10):
        fleet.ask(f"{number}")
    await fleet.clock.forward(2)
    assert fleet.turns == {}
    fleet.store.is_away, fleet.store.is_short = end == "is_away", end == "is_away"
    await fleet.clock.forward(2)
    assert len(fleet.turns) == 10


async def test_a_bug_ends_those_who_wait(monkeypatch: pytest.MonkeyPatch):
    fleet = Fleet()
    await fleet.shortage()

    async def broken(scope: str, places: int) -> Line | None:
        raise ZeroDivisionError

    monkeypatch.setattr(fleet.store, "look", broken)
    with pytest.raises(ZeroDivisionError):
        await fleet.paces[0].permit(ENDPOINT)
