"""The scripted model's process, seen from a measure: what it is to say, and what it noted."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Literal
from uuid import uuid4

import aiohttp
import orjson

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.ports import free_ports
from quarterdeck.stack.probes import http_health
from quarterdeck.stack.processes import ProcessSpec
from tests.bench.agent_scripts import Reply
from tests.bench.lean_stack import running
from tests.bench.machine import ROOT
from tests.bench.measure import Bench, JobFailedError
from tests.bench.peers.zero_latency_model import HOST, Exchange

_SECONDS = aiohttp.ClientTimeout(total=90)


@dataclass(frozen=True)
class Talk:
    """One conversation with the model, told from others by its ``prompt``."""

    name: str
    prompt: str


class ScriptedModel:
    """``url``: where agents find it."""

    def __init__(self, url: str, control: aiohttp.ClientSession) -> None:
        self.url = url
        self._control = control

    async def set_script(self, name: str, replies: Sequence[Reply]) -> None:
        """``name``: small letters, digits and `_`."""
        async with self._control.put(f"/scripts/{name}", data=orjson.dumps(replies)) as response:
            response.raise_for_status()

    def talk(self, script: str) -> Talk:
        """A new conversation after that script."""
        name = uuid4().hex
        return Talk(name, f"bench:{script}:{name}")

    async def until(
        self, talk: Talk, number: int, moment: Literal["arrived", "sent", "closed"] = "arrived"
    ) -> list[Exchange]:
        """The conversation's exchanges, once the one of that ``number``, from 1, has come to ``moment``.

        Raises JobFailedError where that takes too long, or a tool has failed: then something else was measured.
        """
        async with self._control.get(f"/conversations/{talk.name}/{number}/{moment}") as response:
            if response.status != HTTPStatus.OK:
                raise JobFailedError(f"request {number} did not come to `{moment}` in time")
            exchanges = [Exchange(**each) for each in orjson.loads(await response.read())]
        if any(exchange.errors for exchange in exchanges):
            raise JobFailedError(f"a tool failed: {await self._first_error(talk)}")
        return exchanges

    async def last_request(self, talk: Talk) -> dict[str, Any]:
        """The body of the conversation's last request."""
        async with self._control.get(f"/conversations/{talk.name}/last-request") as response:
            request: dict[str, Any] = orjson.loads(await response.read())
        return request

    async def _first_error(self, talk: Talk) -> str:
        blocks = results((await self.last_request(talk))["messages"]).values()
        return next(
            (str(block["content"]) for block in blocks if block.get("is_error")), "which is no longer in the request"
        )

    async def own_seconds(self, talk: Talk, sizes: Sequence[int]) -> list[float]:
        """Seconds from request to request of a bare socket that sends bodies of ``sizes``: what the model itself takes.

        ``talk``: a new one, whose script ends at least as many replies.
        """
        address = self.url.removeprefix("http://")
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for size in sizes:
                body = talk.prompt.encode().ljust(size)
                writer.write(b"POST /v1/messages HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await reader.readuntil(b"\r\n0\r\n\r\n")
        finally:
            writer.close()
        return between(await self.until(talk, len(sizes)))


def results(messages: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The tool results in ``messages``, by the ids of their calls."""
    return {
        block["tool_use_id"]: block
        for message in messages
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "tool_result"
    }


def between(exchanges: Sequence[Exchange]) -> list[float]:
    """Seconds from each request to the next."""
    return [later.arrived - earlier.arrived for earlier, later in pairwise(exchanges)]


@asynccontextmanager
async def scripted_model(bench: Bench, name: str) -> AsyncIterator[ScriptedModel]:
    port, control_port = free_ports(2)
    spec = ProcessSpec(
        name="zero-latency-model",
        command=(
            sys.executable,
            "-m",
            "tests.bench.peers.zero_latency_model",
            f"--port={port}",
            f"--control-port={control_port}",
        ),
        environment=base_environment(),
        log=bench.scratch / f"{name}-model.log",
        folder=ROOT,
        probe=http_health(f"{HOST}:{control_port}"),
    )
    async with (
        running(spec),
        aiohttp.ClientSession(f"http://{HOST}:{control_port}", timeout=_SECONDS) as control,
    ):
        yield ScriptedModel(f"http://{HOST}:{port}", control)
