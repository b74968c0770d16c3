"""nats-py's client, which can also send many messages at once: one after the other, encoding each took it ten times
as long as this does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from nats.aio.client import DEFAULT_FLUSH_TIMEOUT
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, MaxPayloadError

HEADER_BYTES = 1_024
"""Room for a message's headers: ours take some 150 bytes. A server counts them, which nats-py does not."""


class Outgoing(NamedTuple):
    subject: str
    data: bytes
    message_id: str
    """The `Nats-Msg-Id`: JetStream drops a second one within two minutes."""
    headers: Mapping[str, str] = MappingProxyType({})
    """Printable ASCII: words of ours, never a client's."""

    @property
    def all_headers(self) -> dict[str, str]:
        return {"Nats-Msg-Id": self.message_id, **self.headers}

    def command(self) -> bytes:
        """As NATS's protocol has it: `HPUB`."""
        headers = f"NATS/1.0\r\nNats-Msg-Id: {self.message_id}\r\n"
        for name, value in self.headers.items():
            headers += f"{name}: {value}\r\n"
        size = len(headers) + len("\r\n")
        head = f"HPUB {self.subject} {size} {size + len(self.data)}\r\n{headers}\r\n"
        return head.encode("ascii") + self.data + b"\r\n"


class Client(NatsClient):
    @property
    def most_bytes(self) -> int:
        """Of a message's data: what the server takes, beside its headers."""
        return self.max_payload - HEADER_BYTES

    def refuse_oversized(self, messages: Sequence[Outgoing]) -> None:
        """Raises ``MaxPayloadError``: the server ends the connection over such a message."""
        most_bytes = self.most_bytes
        if any(len(message.data) > most_bytes for message in messages):
            raise MaxPayloadError

    async def flush(self, timeout: float = DEFAULT_FLUSH_TIMEOUT) -> None:
        """Return once the server has had all that was sent until now; raises nats-py's errors.

        By itself nats-py asks the server before it writes what still waits, such as a subscription, or its end.
        """
        if self._transport is not None and self.is_connected and self._pending_data_size > 0:
            self._transport.writelines(self._pending)
            self._pending, self._pending_data_size = [], 0
        await super().flush(timeout)  # type: ignore[arg-type]

    async def publish_many(self, messages: Sequence[Outgoing]) -> None:
        """Send ``messages``, none oversized, in their order, as ``publish`` would; raises nats-py's errors."""
        await self._send_commands([message.command() for message in messages])

    async def acknowledge(self, messages: Sequence[Msg]) -> None:
        """Tell JetStream that ``messages`` are done with, as ``Msg.ack`` does for one; raises nats-py's errors."""
        await self._send_commands([b"PUB %b 4\r\n+ACK\r\n" % message.reply.encode("ascii") for message in messages])

    async def _send_commands(self, commands: Sequence[bytes]) -> None:
        if not self.is_connected:
            raise ConnectionClosedError
        await self._send_command(b"".join(commands))
        await self._flush_pending()
