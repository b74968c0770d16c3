"""`python -m services.gateway`: serve until SIGTERM, with or without Postgres and NATS being there."""

from __future__ import annotations

import asyncio
import errno
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

from aiohttp import web

from services.gateway.app import application, assemble
from services.gateway.context import Gateway
from services.gateway.dialects.chosen import chosen
from services.gateway.dialects.dialect import Dialect
from services.gateway.dialects.serving import Served
from services.gateway.rpc.server import CannotListenError, RpcServer
from services.gateway.settings import GatewaySettings
from services.runtime.grpc import GrpcSecurity, WrongCertificatesError
from services.runtime.jetstream import Bus
from services.runtime.lifecycle import repeat, run, stop_tasks, until_stopped
from services.runtime.postgres import TRANSIENT, Database
from services.runtime.settings import load, refuse
from services.runtime.telemetry import configure_logs, logger

log = logger("gateway")

STOP_TASKS = timedelta(seconds=1)
CONNECT_WAIT = timedelta(seconds=0.5)
"""Jobs are taken without NATS too: do not keep them waiting for it."""
INBOX_LOOPS = 3
"""So that a delivery that takes long holds no other one up."""
BACKLOG = 1_024
"""Connections that may wait to be taken: a thousand watchers come back at once when a gateway is restarted."""
EXIT_CANNOT_LISTEN = 1


async def serve(settings: GatewaySettings, stop: asyncio.Event, dialects: Sequence[Dialect] = ()) -> None:
    async with _connected(settings) as gateway:
        served = [Served(dialect, gateway) for dialect in dialects]
        tasks = _background(gateway, served)
        try:
            async with _listening(settings, gateway, served):
                await until_stopped(stop, tasks)
                log.info("stopping")
            await gateway.commands.drain()
        finally:
            await stop_tasks(tasks, timeout=STOP_TASKS)


@asynccontextmanager
async def _connected(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """NATS is closed before Postgres."""
    database = Database(settings.database_url.get_secret_value(), size=settings.database_pool, name="gateway")
    bus = Bus(settings.nats_url.get_secret_value(), name="gateway")
    key, vcs_token, security = settings.api_key, settings.vcs_token, _security(settings)
    try:
        await bus.start(wait=CONNECT_WAIT)
        yield assemble(
            database,
            bus,
            api_key=key.get_secret_value() if key else None,
            sealer=settings.sealer,
            base_urls=settings.base_urls,
            vcs_security=security,
            vcs_token=vcs_token.get_secret_value() if vcs_token else None,
            sync_wait=timedelta(seconds=settings.sync_wait_seconds),
            webhook_rules=settings.webhook_rules,
            webhook_secret=settings.github_webhook_secret,
        )
    finally:
        await bus.close()
        await database.close()


def _security(settings: GatewaySettings) -> GrpcSecurity:
    try:
        return GrpcSecurity.read(settings)
    except WrongCertificatesError as error:
        refuse(error.variable, error.reason)


def _background(gateway: Gateway, served: Sequence[Served]) -> list[asyncio.Task[None]]:
    never, inbox = asyncio.Event(), gateway.webhook.inbox
    steps = {"API key": gateway.authenticator.store_bootstrap_key}
    steps |= {f"client {each.dialect.name}": each.tenant.make for each in served}
    return [
        asyncio.create_task(gateway.hub.run(), name="event hub"),
        *(
            asyncio.create_task(
                repeat("webhooks", inbox.run_once, wait=inbox.wait, transient=TRANSIENT), name=f"webhooks {number}"
            )
            for number in range(INBOX_LOOPS)
        ),
        *(
            asyncio.create_task(repeat(name, step, wait=never.wait, transient=TRANSIENT), name=name)
            for name, step in steps.items()
        ),
    ]


@asynccontextmanager
async def _listening(settings: GatewaySettings, gateway: Gateway, served: Sequence[Served]) -> AsyncIterator[None]:
    """Serve while the context lasts; then take nothing new, end the event streams, and let requests finish."""
    most_bytes = settings.max_body_bytes
    app = application(gateway, max_body_bytes=most_bytes, dialects=served)
    runner = _runner(settings, app)
    own = {each: _runner(settings, each.alone(max_body_bytes=most_bytes)) for each in served if each.dialect.port}
    rpc = RpcServer(gateway, most_request_bytes=most_bytes)
    try:
        await _listen(runner, settings.host, settings.port)
        for dialect, its_runner in own.items():
            await _listen_alone(dialect, its_runner, settings.host)
        if settings.grpc_listen is not None:
            await rpc.start(settings.grpc_listen)
        yield
    except CannotListenError as error:
        refuse("QUARTERDECK_GRPC_LISTEN", str(error))
    finally:
        async with asyncio.TaskGroup() as stopping:
            for each in (runner, *own.values()):
                stopping.create_task(each.cleanup())
            stopping.create_task(rpc.stop(drain_seconds=settings.drain_seconds))


def _runner(settings: GatewaySettings, app: web.Application) -> web.AppRunner:
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        auto_decompress=False,
        shutdown_timeout=settings.drain_seconds,
    )


async def _listen(runner: web.AppRunner, host: str, port: int, **about: str) -> None:
    """``about``: what the log says of it."""
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
    log.info("listening", address=f"http://{host}:{runner.addresses[0][1]}", **about)


async def _listen_alone(served: Served, runner: web.AppRunner, host: str) -> None:
    port = served.dialect.port
    assert port is not None
    try:
        await _listen(runner, host, port.number, dialect=served.dialect.name)
    except OSError as error:
        refuse(port.variable, f"cannot listen on {host}:{port.number}: {str(error).lower()}")


def _allow_many_connections() -> None:
    """Each watcher is an open file, and 1,024 of them, the usual soft limit, are not enough."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    settings = load(GatewaySettings)
    configure_logs(service="gateway", level=settings.log_level, log_format=settings.log_format)
    _allow_many_connections()
    try:
        run(partial(serve, settings, dialects=chosen(settings.host)))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        log.error("cannot listen", host=settings.host, port=settings.port, error=str(error).lower())  # noqa: TRY400
        sys.exit(EXIT_CANNOT_LISTEN)


if __name__ == "__main__":
    main()
