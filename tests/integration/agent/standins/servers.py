"""Stand-ins for the Messages API that others wrote, as processes: started, told what to answer, asked what they saw."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from quarterdeck.stack.ports import free_ports

HOST = "127.0.0.1"
START_SECONDS = 60
POLL_SECONDS = 0.05
CALL_SECONDS = 30
BAD_REQUEST = 400
Json = dict[str, Any]


class Standin:
    """A server that runs, and its control interface over HTTP."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.address = address
        self._session = session

    async def call(self, method: str, path: str, body: Json | None = None, *, headers: Json | None = None) -> Any:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        async with self._session.request(
            method, self.address + path, json=body, headers=headers, timeout=timeout
        ) as response:
            text = await response.text()
            assert response.status < BAD_REQUEST, f"{method} {path} answered {response.status}: {text}"
            return await response.json() if response.content_type == "application/json" else text


class Llmock(Standin):
    """PyPI `llmock`: breaks its answers as it is told to, and judges its client."""

    @property
    def model_address(self) -> str:
        return f"{self.address}/anthropic"

    async def queue(self, *behaviors: Json) -> None:
        """Each is taken by the next request that it matches."""
        await self.call("POST", "/_llmock/scenario", {"behaviors": list(behaviors)})

    async def pending(self) -> list[Json]:
        """What no request has taken yet."""
        pending: list[Json] = (await self.call("GET", "/_llmock/scenario"))["pending"]
        return pending

    async def requests(self) -> list[Json]:
        requests: list[Json] = (await self.call("GET", "/_llmock/requests"))["requests"]
        return requests

    async def verdict(self) -> list[tuple[str, str]]:
        """Severity and code of each finding about the client; where there are some, the whole report is printed."""
        findings = (await self.call("GET", "/_llmock/verdict"))["findings"]
        if findings:
            print(await self.call("GET", "/_llmock/verdict?format=text"))  # noqa: T201  pytest shows it on failure
        return [(finding["severity"], finding["code"]) for finding in findings]


class Aimock(Standin):
    """npm `@copilotkit/aimock`: answers from a list of fixtures, of which a request takes the first that it matches."""

    async def add(self, *fixtures: Json) -> None:
        await self.call("POST", "/__aimock/fixtures", {"fixtures": list(fixtures)})

    async def journal(self) -> list[Json]:
        """Requests in the order of their coming; a body stands as it would be sent to OpenAI."""
        journal: list[Json] = await self.call("GET", "/__aimock/journal?path=/v1/messages")
        return journal


@asynccontextmanager
async def running_llmock(*flags: str) -> AsyncIterator[Llmock]:
    (port,) = free_ports(1)
    script = Path(sys.executable).with_name("llmock")
    command = [str(script), "serve", "--tool-mode", "auto", "--host", HOST, "--port", str(port), *flags]
    async with _running(command, {}), aiohttp.ClientSession() as session:
        server = Llmock(f"http://{HOST}:{port}", session)
        await _until_up(server, "/health")
        yield server


@asynccontextmanager
async def running_aimock(folder: Path) -> AsyncIterator[Aimock]:
    """``folder``: where its package is installed, and which has no fixtures: tests bring their own."""
    (port,) = free_ports(1)
    script = folder / "node_modules" / ".bin" / "llmock"  # its name of old for the server that takes flags
    command = [str(script), "--host", HOST, "--port", str(port), "--fixtures", str(folder / "fixtures")]
    # Else a request that matches nothing is answered by what matches nearly.
    async with _running(command, {"AIMOCK_STRICT_TURN_INDEX": "1"}), aiohttp.ClientSession() as session:
        server = Aimock(f"http://{HOST}:{port}", session)
        await _until_up(server, "/__aimock/health")
        yield server


@asynccontextmanager
async def _running(command: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[None]:
    """A process that is killed at the end: it keeps nothing."""
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *command, env=os.environ | environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            yield
        except BaseException:
            output.seek(0)
            print(output.read().decode(errors="replace"))  # noqa: T201  pytest shows it on failure
            raise
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _until_up(server: Standin, path: str) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                await server.call("GET", path)
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(POLL_SECONDS)
            else:
                return
