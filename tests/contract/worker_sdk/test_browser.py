"""The package in a browser, as its files are: a page of another origin loads it, starts a session and reads it."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.contract.worker_sdk.standin import CONTENTS, StandIn
from tests.contract.worker_sdk.toolchain import NAME

SECONDS = 60
PAGE = """<!doctype html><meta charset="utf-8">
<script type="importmap">{"imports": {"NAME": "/package/dist/index.js"}}</script>
<script type="module">
import { ClaudeCodeWorker } from 'NAME';

async function run() {
  const client = new ClaudeCodeWorker({ baseUrl: 'ADDRESS', apiKey: 'a-key' });
  const session = await client.interactive.start({ prompt: 'Explain', repository: 'owner/repo' });
  const contents = [];
  for await (const chunk of session.stream()) contents.push(chunk.content);
  return { contents, status: (await session.status()).status };
}

const told = await run().catch((error) => ({ error: `${error.code}: ${error.message}` }));
await fetch('/told', { method: 'POST', body: JSON.stringify(told) });
</script>"""


@asynccontextmanager
async def site(package: Path, address: str) -> AsyncIterator[tuple[str, asyncio.Future[dict[str, object]]]]:
    """The page's address, and what it tells."""
    told: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()

    async def page(request: web.Request) -> web.Response:
        text = PAGE.replace("NAME", NAME).replace("ADDRESS", address)
        return web.Response(text=text, content_type="text/html")

    async def tell(request: web.Request) -> web.Response:
        told.set_result(json.loads(await request.text()))
        return web.Response()

    application = web.Application()
    application.router.add_get("/", page)
    application.router.add_post("/told", tell)
    application.router.add_static("/package", package)
    async with TestServer(application, host="127.0.0.1") as server:
        yield str(server.make_url("/")), told


@asynccontextmanager
async def browser_at(address: str, profile: Path) -> AsyncIterator[None]:
    program = shutil.which("chromium") or shutil.which("chromium-headless-shell") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed: the package cannot be tried in a browser")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server")
    process = await asyncio.create_subprocess_exec(
        *(program, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", address),
        env={"PATH": os.environ["PATH"], "HOME": str(profile)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), SECONDS)


async def test_a_page_of_another_origin_reads_a_session(project: Path, stand_in: StandIn, tmp_path: Path) -> None:
    package = project / "node_modules" / NAME
    async with site(package, f"{stand_in.address}/cut/400") as (address, told), browser_at(address, tmp_path):
        assert await asyncio.wait_for(told, SECONDS) == {"contents": list(CONTENTS), "status": "processing"}
