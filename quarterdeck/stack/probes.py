"""Whether a server answers yet: probes for processes, each bounded in time, none raising."""

import asyncio

import aiohttp

from quarterdeck.stack.processes import Probe

ANSWER_SECONDS = 2.0


def http_health(address: str) -> Probe:
    """Ready once ``GET http://address/health`` answers 200."""
    url = f"http://{address}/health"

    async def probe() -> str | None:
        try:
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                return None if answer.status == 200 else f"{url} answers {answer.status}"  # noqa: PLR2004
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{url} does not answer: {error!r}"

    return probe


def listening(host: str, port: int) -> Probe:
    """Ready once something listens there."""

    async def probe() -> str | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            return f"nothing listens on {host}:{port}: {error!r}"
        return None

    return probe
