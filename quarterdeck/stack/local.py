"""The whole of Quarterdeck on this machine: lock, orphans, servers, migration, services, and the way back.

Only this module knows the order; how each process is run is in ``services``, ``postgres`` and ``nats``.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from os import getpid
from types import TracebackType
from typing import Any, Self

from quarterdeck.offline_model.wire import MODEL_NAME
from quarterdeck.stack.concurrency import together
from quarterdeck.stack.errors import StackStartError
from quarterdeck.stack.files import private_folder
from quarterdeck.stack.info import StackInfo, write_info
from quarterdeck.stack.lock import DataFolderLock
from quarterdeck.stack.nats import NatsServer
from quarterdeck.stack.options import DataFolder, StackOptions
from quarterdeck.stack.orphans import ProcessRecord, end_recorded, write_records
from quarterdeck.stack.ports import is_free, on_free_ports
from quarterdeck.stack.postgres import PostgresServer
from quarterdeck.stack.processes import ProcessSpec, run_to_end
from quarterdeck.stack.services import HOST, ServiceSpecs, reachable
from quarterdeck.stack.supervisor import Notice, Supervisor

ORPHAN_SECONDS = 3.0
MIGRATE_SECONDS = 120.0


class LocalStack:
    """One stack on one data folder; for one ``start`` and one ``stop``, or as an async context manager.

    Run it in the main thread. ``on_notice`` hears of processes that died, ``on_progress`` what is being started.
    """

    def __init__(
        self,
        options: StackOptions,
        *,
        on_notice: Callable[[Notice], None] = lambda _: None,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._options = options
        self._folder = DataFolder(options.data_dir)
        self._lock = DataFolderLock(self._folder.lock)
        self._progress = on_progress
        self._supervisor = Supervisor(on_notice=on_notice, on_change=self._record)
        self._info: StackInfo | None = None
        self._subscriber_nats_url: str | None = None

    @property
    def info(self) -> StackInfo:
        """What ``stack.json`` says; from ``start`` to ``stop``."""
        assert self._info is not None, "the stack is not up"
        return self._info

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> StackInfo:
        """Start everything and wait until all of it is healthy; where that fails, nothing is left running.

        Raises StackLockedError (another stack has the folder) and StackStartError (with the log's last lines).
        """
        self._lock.acquire()
        try:
            await self._clean_up()
            database_url, nats_url = await self._start_servers()
            self._info = await self._start_services(ServiceSpecs(self._options, database_url, nats_url))
        except BaseException:
            await self.stop()
            raise
        self._lock.announce(self._info.address)
        self._record()
        return self._info

    async def run_until_stopped(self, stop: asyncio.Event) -> None:
        """Wait for the event, then stop."""
        await stop.wait()
        await self.stop()

    async def stop(self, *, at_once: bool = False) -> None:
        """Stop in order, each process within its time, all within 10 s; ``at_once``: without grace.

        May be called again, also with ``at_once`` while an orderly stop is under way.
        """
        if not self._lock.held:
            return
        self._folder.info.unlink(missing_ok=True)
        self._info = None
        if at_once:
            await self._supervisor.stop_all(at_once=True)
        for stage in self._stop_order():
            await self._supervisor.stop(*stage)
        self._folder.processes.unlink(missing_ok=True)
        self._lock.release()

    def _stop_order(self) -> list[list[str]]:
        agents = [name for name in self._supervisor.processes if name.startswith("agent-")]
        return [["gateway"], ["scheduler"], agents, ["vcs"], ["offline-model"], ["nats"], ["postgres"]]

    async def _clean_up(self) -> None:
        """End what an earlier stack left behind when it was killed."""
        private_folder(self._folder.vcs)
        self._folder.info.unlink(missing_ok=True)
        ended = await asyncio.to_thread(end_recorded, self._folder.processes, seconds=ORPHAN_SECONDS)
        if ended:
            self._progress(f"ended what an earlier stack left running: {', '.join(ended)}")

    async def _start_servers(self) -> tuple[str, str]:
        """The URLs of PostgreSQL and NATS: embedded ones, started, where the options name none."""

        async def database_url() -> str:
            return self._options.database_url or await on_free_ports(1, self._start_postgres)

        async def nats_url() -> str:
            return self._options.nats_url or await on_free_ports(1, self._start_nats)

        database, nats = await together(database_url(), nats_url())
        return database, nats

    async def _start_postgres(self, port: int) -> str:
        self._progress("starting PostgreSQL")
        server = PostgresServer(self._folder.path, port=port)
        await server.prepare()
        await self._supervisor.start(server.spec())
        await server.create_database()
        return server.url

    async def _start_nats(self, port: int) -> str:
        self._progress("starting NATS")
        server = NatsServer(self._folder.path, port=port)
        await server.prepare()
        await self._supervisor.start(server.spec())
        self._subscriber_nats_url = server.subscriber_url
        return server.url

    async def _start_services(self, specs: ServiceSpecs) -> StackInfo:
        self._check_gateway_port()
        _, model_url = await together(self._migrate(specs), self._start_model(specs))
        vcs_address = await self._start_on(2, specs.vcs)

        def agent(number: int) -> Coroutine[Any, Any, str]:
            return self._start_on(
                1, lambda port: specs.agent(number, port, vcs_address=vcs_address, model_url=model_url)
            )

        agents = [agent(number) for number in range(1, self._options.agents + 1)]
        address, *_ = await together(self._start_gateway(specs, model_url), self._start_on(1, specs.scheduler), *agents)
        return self._describe(specs, address=address, vcs_address=vcs_address, model_url=model_url)

    async def _migrate(self, specs: ServiceSpecs) -> None:
        self._progress("migrating the database")
        await run_to_end(specs.migrate(), seconds=MIGRATE_SECONDS)

    async def _start_model(self, specs: ServiceSpecs) -> str | None:
        """The offline model's URL, where it stands in."""
        return f"http://{await self._start_on(1, specs.offline_model)}" if self._options.offline else None

    async def _start_gateway(self, specs: ServiceSpecs, model_url: str | None) -> str:
        port, gateway = self._options.port, partial(specs.gateway, model_url=model_url)
        address = await (self._start_on(1, gateway) if port is None else self._start_one(gateway, port))
        return f"http://{reachable(self._options.host)}:{address.rpartition(':')[2]}"

    async def _start_on(self, count: int, make: Callable[..., ProcessSpec]) -> str:
        """Start a process on ``count`` free ports; the address of the first."""
        return await on_free_ports(count, lambda *ports: self._start_one(make, *ports))

    async def _start_one(self, make: Callable[..., ProcessSpec], *ports: int) -> str:
        spec = make(*ports)
        self._progress(f"starting {spec.name}")
        await self._supervisor.start(spec)
        return f"{HOST}:{ports[0]}"

    def _check_gateway_port(self) -> None:
        port = self._options.port
        if port is not None and not is_free(self._options.host, port):
            raise StackStartError(
                f"the gateway cannot listen on {self._options.host}:{port}: another program does, or the address is "
                "not this machine's; choose another --port, or leave it out for a free one"
            )

    def _describe(self, specs: ServiceSpecs, *, address: str, vcs_address: str, model_url: str | None) -> StackInfo:
        return StackInfo(
            address=address,
            api_key=specs.api_key,
            model=MODEL_NAME if model_url else self._options.claude_model,
            offline_model=model_url is not None,
            model_url=model_url,
            database_url=specs.database_url,
            nats_url=specs.nats_url,
            subscriber_nats_url=self._subscriber_nats_url,
            grpc_address=specs.grpc_address,
            vcs_address=vcs_address,
            data_dir=str(self._folder.path),
            pid=getpid(),
            processes={},
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version("quarterdeck"),
        )

    def _record(self) -> None:
        """Keep on disk what runs: for the next start, should we be killed, and for those who ask."""
        processes = self._supervisor.processes
        write_records(self._folder.processes, [ProcessRecord.of(each) for each in processes.values()])
        if self._info is not None:
            self._info = replace(self._info, processes={name: each.child.pid for name, each in processes.items()})
            write_info(self._folder.info, self._info)
