"""The bare SDK's process, seen from a measure."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import orjson

from quarterdeck.stack.environment import base_environment
from tests.bench.agent_model import ScriptedModel, Talk, results
from tests.bench.machine import ROOT
from tests.bench.measure import Bench, JobFailedError

_STOP_SECONDS = 5
_DONE_SECONDS = 90
_TOLD_CHARACTERS = 2_000


class BareSdk:
    def __init__(self, process: Process, log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log

    async def converse(self, *talks: Talk) -> list[list[float]]:
        """Lead these conversations, all at once, to their ends; when each reply's first delta was there."""
        return await self._do("converse", talks)

    async def resume(self, *talks: Talk) -> list[float]:
        """Send the next request behind the whole history, once for each; epoch seconds before."""
        return await self._do("resume", talks)

    async def cancel(self, *talks: Talk) -> list[float]:
        """Begin these, one after the other, and break each off in its first reply; epoch seconds when."""
        return await self._do("cancel", talks)

    def begin(self, *talks: Talk) -> None:
        """Begin with these, which have no end."""
        self._tell("begin", talks)

    async def _do(self, what: Literal["converse", "resume", "cancel"], talks: Sequence[Talk]) -> list[Any]:
        self._tell(what, talks)
        assert self._process.stdout is not None
        async with asyncio.timeout(_DONE_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            told = self._log.read_text()[-_TOLD_CHARACTERS:]
            raise JobFailedError(f"the bare SDK's loop ended on an error; its last log lines:\n{told}")
        came: list[Any] = orjson.loads(line)
        return came

    def _tell(self, what: str, talks: Sequence[Talk]) -> None:
        assert self._process.stdin is not None
        told = {"do": what, "prompts": [talk.prompt for talk in talks]}
        self._process.stdin.write(orjson.dumps(told) + b"\n")


@asynccontextmanager
async def bare_sdk(
    bench: Bench, model: ScriptedModel, like: Talk, *, files: Path | None = None
) -> AsyncIterator[BareSdk]:
    """With the system prompt, tools and results that an agent has just sent in the conversation ``like``.

    ``files``: where it uses the reading tools itself, before it answers with those results; None: it does not.
    """
    request = await model.last_request(like)
    history = request.pop("messages")
    path = bench.scratch / f"bare-{like.name}{'-using-tools' if files else ''}.json"
    path.write_bytes(orjson.dumps({"request": request, "results": results(history), "history": history}))
    command: tuple[str, ...] = ("-m", "tests.bench.peers.bare_sdk", f"--url={model.url}", f"--conversation={path}")
    if files is not None:
        command = (*command, f"--files={files}")
    log_path = path.with_suffix(".log")
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=PIPE, stdout=PIPE, stderr=log, env=base_environment(), cwd=ROOT
        )
    try:
        yield BareSdk(process, log_path)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
