"""The least a fan-out can be: what NATS sends is written to every socket as it is. No HTTP, no resuming. A process."""

from __future__ import annotations

import argparse
import asyncio

import nats
import uvloop
from nats.aio.msg import Msg

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


async def serve(port: int, nats_url: str, subject: str) -> None:
    """Serve until the process is ended."""
    writers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_ANSWER)
        writers.add(writer)
        await reader.read()
        writers.discard(writer)
        writer.close()

    async def fan_out(message: Msg) -> None:
        for writer in writers:
            writer.write(message.data)

    client = await nats.connect(nats_url)
    await client.subscribe(subject, cb=fan_out)
    async with await asyncio.start_server(answer, "127.0.0.1", port, backlog=1_024) as server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--nats-url", required=True)
    parser.add_argument("--subject", required=True)
    asked = parser.parse_args()
    uvloop.run(serve(asked.port, asked.nats_url, asked.subject))
