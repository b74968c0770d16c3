"""`GET /health` for services that have no HTTP of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from aiohttp import web

from services.contracts.rest import Health
from services.runtime.settings import split_address

Check = Callable[[], Awaitable[str]]
"""Answers `ok`, or in a few words what is wrong."""

CHECK_SECONDS = 2.0
_NO_FACTS: Mapping[str, str] = MappingProxyType({})


async def look(service: str, checks: Mapping[str, Check], facts: Mapping[str, str] = _NO_FACTS) -> Health:
    """Run all ``checks`` side by side, each within 2 s. ``facts``: told as they are, whatever they say."""

    async def one(check: Check) -> str:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return await check()
        except TimeoutError:
            return f"no answer within {CHECK_SECONDS:g} s"

    answers = await asyncio.gather(*(one(check) for check in checks.values()))
    results = dict(zip(checks, answers, strict=True))
    healthy = all(answer == "ok" for answer in answers)
    return Health(status="healthy" if healthy else "degraded", service=service, checks={**results, **facts})


def health_handler(
    service: str, checks: Mapping[str, Check], facts: Mapping[str, str] = _NO_FACTS
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Answer 200 where every check is `ok`, else 503 with what is wrong."""

    async def health(_: web.Request) -> web.StreamResponse:
        found = await look(service, checks, facts)
        return web.Response(
            status=200 if found.status == "healthy" else 503,
            body=found.model_dump_json(by_alias=True).encode(),
            content_type="application/json",
        )

    return health


@asynccontextmanager
async def serve_health(
    service: str, address: str | None, checks: Mapping[str, Check], facts: Mapping[str, str] = _NO_FACTS
) -> AsyncIterator[None]:
    """Serve `/health` at ``address`` while the context lasts; nowhere where it is None."""
    if address is None:
        yield
        return
    app = web.Application()
    app.router.add_get("/health", health_handler(service, checks, facts))
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        host, port = split_address(address)
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
