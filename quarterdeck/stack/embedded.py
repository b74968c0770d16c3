"""PostgreSQL and nats-server without the services: what integration tests and tools run against."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from quarterdeck.stack.concurrency import together
from quarterdeck.stack.files import private_folder
from quarterdeck.stack.nats import NatsServer
from quarterdeck.stack.ports import free_ports
from quarterdeck.stack.postgres import PostgresServer
from quarterdeck.stack.processes import ChildProcess

ServerName = Literal["postgres", "nats"]


class EmbeddedServers:
    """Real servers in a folder: an ephemeral one that goes with them, or ``folder``, which stays.

    ``durable=False`` turns off fsync, for tests alone. A server that dies stays down; ``kill`` and ``start`` are
    there to make that happen. Use as an async context manager, in the main thread.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        durable: bool = True,
        servers: tuple[ServerName, ...] = ("postgres", "nats"),
    ) -> None:
        self._ephemeral = folder is None
        self.folder = private_folder(folder or Path(tempfile.mkdtemp(prefix="quarterdeck-")))
        postgres_port, nats_port = free_ports(2)
        self.postgres = PostgresServer(self.folder, port=postgres_port, durable=durable)
        self.nats = NatsServer(self.folder, port=nats_port)
        self._servers = servers
        self.running: dict[ServerName, ChildProcess] = {}

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def nats_url(self) -> str:
        return self.nats.url

    @property
    def subscriber_nats_url(self) -> str:
        return self.nats.subscriber_url

    async def __aenter__(self) -> Self:
        try:
            await together(*(self.start(name) for name in self._servers))
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, name: ServerName) -> ChildProcess:
        """Start one server that does not run, and wait until it is ready; its port stays the same."""
        server = self.postgres if name == "postgres" else self.nats
        await server.prepare()
        child = self.running[name] = await ChildProcess.spawn(server.spec())
        await child.wait_ready()
        if name == "postgres":
            await self.postgres.create_database()
        return child

    async def kill(self, name: ServerName) -> None:
        """SIGKILL, and wait until it is gone."""
        child = self.running.pop(name)
        child.kill_group()
        await child.wait()

    async def stop(self) -> None:
        """Stop both; an ephemeral folder goes too."""
        await asyncio.gather(*(child.stop() for child in self.running.values()))
        self.running.clear()
        if self._ephemeral:
            shutil.rmtree(self.folder, ignore_errors=True)
