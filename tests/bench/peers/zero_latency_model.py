"""A Messages server that streams scripted replies at once and notes when what came and went. A process.

The replies are encoded before anybody asks, so that this never is what is measured. Whose request it is, a mark in its
prompt says: `bench:<script>:<conversation>`. Scripts are set and notes are read on a second port.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import orjson
import uvloop
from aiohttp import web

HOST = "127.0.0.1"
_MARK = re.compile(rb"bench:([a-z0-9_]+):([0-9a-f]+)")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
_END = b"0\r\n\r\n"
_ERRORS = (b'"is_error":true', b'"is_error": true')
_WAIT_SECONDS = 60


@dataclass(frozen=True)
class Piece:
    """``data``: HTTP as it goes out. ``after_seconds``: since the piece before, or since the request was there."""

    data: bytes
    after_seconds: float


@dataclass(frozen=True)
class Reply:
    """``pieces``: at least one. Without an ``end`` the connection stays open until the client leaves."""

    pieces: Sequence[Piece]
    ends: bool


@dataclass
class Exchange:
    """One request and its reply; epoch seconds. ``came``: its first byte. ``arrived``: its last. ``sent``: each piece
    of the reply. ``closed``: the client left before the end. ``errors``: tool results that say so, in all messages.
    """

    came: float
    arrived: float
    size: int
    errors: int = 0
    sent: list[float] = field(default_factory=list)
    closed: float | None = None


class Conversation:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.last_request = b""
        self._changed = asyncio.Event()

    def tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, number: int, moment: Literal["arrived", "sent", "closed"]) -> None:
        """Return once the exchange ``number``, from 1, has come so far. Raises TimeoutError."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while len(self.exchanges) < number or not getattr(self.exchanges[number - 1], moment):
                await self._changed.wait()


class Conversations:
    def __init__(self) -> None:
        self.scripts: dict[bytes, Sequence[Reply]] = {}
        self._known: defaultdict[str, Conversation] = defaultdict(Conversation)

    def __getitem__(self, name: str) -> Conversation:
        return self._known[name]

    def begin(self, body: bytes, came: float) -> tuple[Conversation, Exchange, Reply] | None:
        """The next exchange of the conversation that ``body`` belongs to; None where no script is known for it.

        Behind the script's end its last reply is given again.
        """
        arrived, mark = time.time(), _MARK.search(body)
        script = self.scripts.get(mark[1]) if mark else None
        if not mark or not script:
            return None
        conversation = self._known[mark[2].decode()]
        exchange = Exchange(came, arrived, len(body))
        reply = script[min(len(conversation.exchanges), len(script) - 1)]
        conversation.exchanges.append(exchange)
        conversation.last_request = body
        return conversation, exchange, reply


class Connection(asyncio.Protocol):
    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._received = bytearray()
        self._came = 0.0
        self._sending: asyncio.TimerHandle | None = None
        self._under_way: tuple[Conversation, Exchange] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class

    def data_received(self, data: bytes) -> None:
        self._came = self._came or time.time()
        self._received += data
        begin = self._received.find(_HEAD_END) + len(_HEAD_END)
        if begin < len(_HEAD_END):
            return
        length = _LENGTH.search(self._received, 0, begin)
        end = begin + (int(length[1]) if length else 0)
        if len(self._received) >= end:
            body, came = bytes(memoryview(self._received)[begin:end]), self._came
            del self._received[:end]
            self._came = 0.0
            self._answer(body, came)

    def _answer(self, body: bytes, came: float) -> None:
        begun = self._conversations.begin(body, came)
        if begun is None:
            self._transport.write(_REFUSED)
            return
        conversation, exchange, reply = begun
        self._under_way = conversation, exchange
        self._send(conversation, exchange, reply, 0)
        exchange.errors = sum(body.count(error) for error in _ERRORS)
        conversation.tell()

    def _send(self, conversation: Conversation, exchange: Exchange, reply: Reply, number: int) -> None:
        """Send the reply from its piece ``number`` on."""
        if number == len(reply.pieces):
            if reply.ends:
                self._under_way = None
            return
        piece = reply.pieces[number]

        def send() -> None:
            exchange.sent.append(time.time())
            self._transport.write(piece.data)
            conversation.tell()
            self._send(conversation, exchange, reply, number + 1)

        if piece.after_seconds:
            self._sending = asyncio.get_running_loop().call_later(piece.after_seconds, send)
        else:
            send()

    def connection_lost(self, error: Exception | None) -> None:
        if self._sending is not None:
            self._sending.cancel()
        if self._under_way is not None:
            conversation, exchange = self._under_way
            exchange.closed = time.time()
            conversation.tell()


class Control:
    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def set_script(self, request: web.Request) -> web.Response:
        """``[{"ends": bool, "pieces": [{"text", "after_seconds"}, …]}, …]``, one reply after another."""
        script = [_reply(each) for each in orjson.loads(await request.read())]
        self._conversations.scripts[request.match_info["name"].encode()] = script
        return web.Response()

    async def exchanges(self, request: web.Request) -> web.Response:
        """Those of a conversation, once the exchange ``number`` has come to ``moment``."""
        conversation = self._conversations[request.match_info["name"]]
        moment = cast("Literal['arrived', 'sent', 'closed']", request.match_info["moment"])
        try:
            await conversation.until(int(request.match_info["number"]), moment)
        except TimeoutError:
            raise web.HTTPGatewayTimeout from None
        return web.Response(body=orjson.dumps([asdict(each) for each in conversation.exchanges]))

    async def last_request(self, request: web.Request) -> web.Response:
        return web.Response(body=self._conversations[request.match_info["name"]].last_request)


def _reply(told: dict[str, Any]) -> Reply:
    chunks = [b"%x\r\n%b\r\n" % (len(text), text) for text in (piece["text"].encode() for piece in told["pieces"])]
    chunks[0] = _HEAD + chunks[0]
    if told["ends"]:
        chunks[-1] += _END
    return Reply(
        [Piece(chunk, piece["after_seconds"]) for chunk, piece in zip(chunks, told["pieces"], strict=True)],
        told["ends"],
    )


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def serve(port: int, control_port: int) -> None:
    """Serve until the process is ended."""
    conversations = Conversations()
    control = Control(conversations)
    app = web.Application(client_max_size=256 * 1024 * 1024)
    app.router.add_get("/health", _health)
    app.router.add_put("/scripts/{name}", control.set_script)
    app.router.add_get("/conversations/{name}/{number}/{moment}", control.exchanges)
    app.router.add_get("/conversations/{name}/last-request", control.last_request)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(conversations), HOST, port, backlog=1_024)
    await web.TCPSite(runner, HOST, control_port).start()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control-port", type=int, required=True)
    asked = parser.parse_args()
    uvloop.run(serve(asked.port, asked.control_port))
