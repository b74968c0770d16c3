"""`python -m tests.integration.faults.halting_agent`: the agent service; each of its runs comes to a halt at one step,
to be killed there. What was under way beside that step goes on. The service's own code is not touched; but unless it is
told to, it stores nothing together that can be stored apart, so that each step has a number that is always the same.

A step is `<moment>:<call>:<which one of that call>`, counted from the attempt's start, as in `after:save:3`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import orjson

from services.agent import __main__ as agent
from services.agent.assembly import Shared
from services.agent.attempt import Attempt
from services.agent.checkpoints import Saver
from services.agent.model import Claude, client
from services.agent.saving import Saving
from services.agent.tools import Toolbox
from services.agent.vcs_client import VcsClient
from services.agent.verification import Verifier
from services.jobs.models import Checkpoint, ClaimedRun
from services.jobs.running import Running
from services.runtime import lifecycle

CALLS: dict[str, tuple[type, str]] = {
    "prepare": (VcsClient, "prepare"),
    "request": (Claude, "reply"),
    "save": (Saver, "__call__"),
    "tool": (Toolbox, "_run_one"),
    "diff": (VcsClient, "snapshot"),
    "commit": (VcsClient, "commit"),
    "check": (Verifier, "check"),
    "restore": (VcsClient, "restore"),
    "deliver": (Running, "deliver"),
}
"""`request` has a third moment, `within`: the reply has begun to stream."""
HALTS_VARIABLE = "TEST_HALTS"
"""A JSON object: run id to step. Runs that are not in it do not halt."""
JOINS_VARIABLE = "TEST_JOINS"
"""Set: checkpoints are stored together as they come; how many there are is then a matter of time."""
HALTED = "halted:"


class Halt:
    """Where one attempt is to halt, and how far it is."""

    def __init__(self, run_id: str, step: str | None) -> None:
        self._run_id = run_id
        self._step = step
        self._calls: Counter[str] = Counter()

    def calls(self, call: str) -> int:
        return self._calls[call]

    def begun(self, call: str) -> int:
        self._calls[call] += 1
        return self._calls[call]

    async def reach(self, moment: str, call: str, number: int) -> None:
        """Return at once, or never."""
        if f"{moment}:{call}:{number}" != self._step:
            return
        sys.stdout.write(f"{HALTED} {self._run_id}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


_halt: ContextVar[Halt] = ContextVar("halt")
"""That of the attempt which the current task works for."""
_halts: dict[str, str] = orjson.loads(os.environ.get(HALTS_VARIABLE, "{}"))


class HaltingAttempt(Attempt):
    def __init__(self, run: ClaimedRun, shared: Shared) -> None:
        super().__init__(run, shared)
        run_id = str(run.hold.run_id)
        self._halt = Halt(run_id, _halts.get(run_id))

    async def work(self) -> None:
        _halt.set(self._halt)
        await super().work()


def _stepped(call: str, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def step(*arguments: Any, **keywords: Any) -> Any:
        halt = _halt.get()
        number = halt.begun(call)
        await halt.reach("before", call, number)
        result = await original(*arguments, **keywords)
        await halt.reach("after", call, number)
        return result

    return step


def _streamed(original: Callable[..., AsyncGenerator[str, None]]) -> Callable[..., AsyncGenerator[str, None]]:
    async def stream(*arguments: Any) -> AsyncGenerator[str, None]:
        halt = _halt.get()
        async for data in original(*arguments):
            yield data
            await halt.reach("within", "request", halt.calls("request"))

    return stream


async def _save_alone(saving: Saving, checkpoint: Checkpoint) -> None:
    await saving.done()
    await saving._save(checkpoint)


def install() -> None:
    if not os.environ.get(JOINS_VARIABLE):
        for name, alone in {"hold": Saving.begin, "save": _save_alone}.items():
            setattr(Saving, name, alone)
    for call, (owner, name) in CALLS.items():
        setattr(owner, name, _stepped(call, getattr(owner, name)))
    vars(client)["_events"] = _streamed(vars(client)["_events"])
    vars(agent)["Attempt"] = HaltingAttempt


if __name__ == "__main__":
    install()
    lifecycle.run(agent.serve)
