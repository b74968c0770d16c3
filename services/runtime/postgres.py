"""Postgres for every service: a bounded pool, transactions that are tried again, deadlines on everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import aiosql
import asyncpg
import orjson
from aiosql.adapters.asyncpg import AsyncPGAdapter
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
Record: TypeAlias = asyncpg.Record
Result = TypeVar("Result")

ACQUIRE_SECONDS = 2.0
STATEMENT_SECONDS = 5.0
TRANSACTION_SECONDS = 10.0
RETRY_SECONDS = 4.0

# A stopped process must hold no lock for long: the server ends its transaction after at most 2 s.
SERVER_SETTINGS = {
    "lock_timeout": "2000",
    "transaction_timeout": "2000",
    "idle_in_transaction_session_timeout": "2000",
    "timezone": "UTC",
    # No statement here runs for long enough to be worth compiling.
    "jit": "off",
    # Planning one takes longer than running it: once a connection is enough. See ``planned_anew`` for the exceptions.
    "plan_cache_mode": "force_generic_plan",
    # So plans outlive the time when the tables were empty: none may read a whole table because it was small then.
    "enable_seqscan": "off",
}


class StoreUnavailableError(Exception):
    """Postgres cannot be reached, is shutting down or has no room; nothing is known to have changed. Try again."""


_GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DiskFullError,
    asyncpg.PostgresIOError,
)
# The server itself undid these; the same transaction may well succeed now.
_UNDONE = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
)


async def _set_up(connection: asyncpg.Connection[Record]) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        # The binary form of jsonb is a version byte, 1, before the text.
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda data: orjson.loads(memoryview(data)[1:]),
    )


async def _leave_as_it_is(_: asyncpg.Connection[Record]) -> None:
    """For a connection that comes back: its transaction is undone, and nothing else here outlives a transaction.

    No session has variables, listeners or locks of its own, so the pool's default, a round trip, would reset nothing.
    """


class Database:
    """A pool of connections, opened lazily, so that a service starts and recovers while Postgres is away."""

    def __init__(self, url: str, *, size: int, name: str) -> None:
        """``size``: most connections. ``name``: shown in `pg_stat_activity`."""
        self._url = url
        self._name = name
        self._size = size
        self._pool: asyncpg.Pool[Record] | None = None
        self._opening = asyncio.Lock()

    async def _open(self) -> asyncpg.Pool[Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=1,
                    max_size=self._size,
                    timeout=ACQUIRE_SECONDS,
                    command_timeout=STATEMENT_SECONDS,
                    init=_set_up,
                    reset=_leave_as_it_is,
                    server_settings={**SERVER_SETTINGS, "application_name": self._name},
                )
            return self._pool

    async def close(self) -> None:
        """Close the pool; what is still in use after 2 s is cut off."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; raises ``StoreUnavailableError`` where none is to be had or it breaks in use."""
        try:
            pool = self._pool or await self._open()
            async with asyncio.timeout(ACQUIRE_SECONDS):  # asyncpg's own takes a task for each
                connection = await pool.acquire()
            try:
                async with breakage_told(connection):
                    yield connection
            finally:
                await pool.release(connection, timeout=ACQUIRE_SECONDS)
        except (*_GONE, asyncpg.InternalClientError) as error:  # the latter when giving a broken connection back
            raise StoreUnavailableError(_words(error)) from error
        except asyncpg.UndefinedTableError as error:
            words = "the schema is not there yet: run `python -m services.jobs.migrate`"
            raise StoreUnavailableError(words) from error

    @asynccontextmanager
    async def planned_anew(self) -> AsyncIterator[Connection]:
        """Lend a connection for statements whose best plan hangs on what is asked, as with filters that may be null."""
        async with self.transaction() as connection:
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction, committed at the end of the block; read committed; 10 s at most in all."""
        try:
            async with (
                asyncio.timeout(TRANSACTION_SECONDS),
                self.connection() as connection,
                connection.transaction(),
            ):
                yield connection
        except TimeoutError as error:
            raise StoreUnavailableError(f"a transaction took over {TRANSACTION_SECONDS:g} s") from error

    async def in_transaction(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run ``work`` in a transaction, again from its start where Postgres undid it or the connection broke.

        ``work`` must be safe to run twice: a broken connection leaves unknown whether its commit happened.
        Gives up after 4 s with ``StoreUnavailableError``.
        """
        return await self._retried(self._once, work)

    async def in_statement(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """The same for a ``work`` of a single statement, which is a transaction by itself."""
        return await self._retried(self._alone, work)

    async def _retried(
        self,
        attempt: Callable[[Callable[[Connection], Awaitable[Result]]], Awaitable[Result]],
        work: Callable[[Connection], Awaitable[Result]],
    ) -> Result:
        with suppress(StoreUnavailableError, *_UNDONE):
            return await attempt(work)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((StoreUnavailableError, *_UNDONE)),
            wait=wait_random_exponential(multiplier=0.02, max=0.5),
            stop=stop_after_delay(RETRY_SECONDS),
            reraise=True,
        )
        try:
            return await retrying(attempt, work)
        except _UNDONE as error:
            raise StoreUnavailableError(_words(error)) from error

    async def _once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        async with self.transaction() as connection:
            return await work(connection)

    async def _alone(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        try:
            async with asyncio.timeout(TRANSACTION_SECONDS), self.connection() as connection:
                return await work(connection)
        except TimeoutError as error:
            raise StoreUnavailableError(f"a statement took over {TRANSACTION_SECONDS:g} s") from error

    async def check(self) -> str:
        """For `/health`."""
        try:
            async with self.connection() as connection:
                await connection.fetchval("SELECT 1")
        except StoreUnavailableError as error:
            return f"unreachable: {error}"
        return "ok"


@asynccontextmanager
async def breakage_told(connection: Connection) -> AsyncIterator[None]:
    """Tell a connection that broke from one that was misused: asyncpg uses the same errors for both."""
    try:
        yield
    except asyncpg.InternalClientError as error:
        # Seen after the server was killed: the connection has lost its place in the protocol, but not its socket.
        connection.terminate()
        raise StoreUnavailableError(_words(error)) from error
    except asyncpg.InterfaceError as error:
        if _is_closed(connection):
            raise StoreUnavailableError(_words(error)) from error
        raise


def _is_closed(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # its backend ended within a transaction, and the pool has taken it back already


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def connect(url: str, *, name: str, timeout_seconds: float) -> asyncpg.Connection[Record]:
    """One connection outside of any pool, for a thread of its own; raises ``StoreUnavailableError``."""
    try:
        return await asyncpg.connect(
            url,
            timeout=timeout_seconds,
            command_timeout=timeout_seconds,
            server_settings={**SERVER_SETTINGS, "application_name": name},
        )
    except _GONE as error:
        raise StoreUnavailableError(_words(error)) from error


ConflictError = asyncpg.UniqueViolationError
TRANSIENT: tuple[type[BaseException], ...] = (StoreUnavailableError,)
CONNECTION_ERRORS: tuple[type[BaseException], ...] = _GONE
UNDONE: tuple[type[BaseException], ...] = _UNDONE


class Statements:
    """The SQL of one file: statements under `-- name: …` headers, parameters as `:name`, each called by its name."""

    def __init__(self, path: Path) -> None:
        adapter = AsyncPGAdapter()  # type: ignore[no-untyped-call]
        queries = aiosql.from_path(path, lambda: adapter, mandatory_parameters=False)
        # aiosql reads the file; what it would do for each call and each row takes nearly as long as asyncpg does.
        self._statements = {
            name: (getattr(queries, name).sql, tuple(adapter.var_sorted[name])) for name in queries.available_queries
        }

    async def rows(self, connection: Connection, name: str, /, **parameters: Any) -> list[Record]:
        """Run a statement whose header is a bare `name`."""
        sql, names = self._statements[name]
        return await connection.fetch(sql, *[parameters[each] for each in names])

    async def row(self, connection: Connection, name: str, /, **parameters: Any) -> Record | None:
        """Run a statement whose header ends in `^`."""
        sql, names = self._statements[name]
        return await connection.fetchrow(sql, *[parameters[each] for each in names])

    async def value(self, connection: Connection, name: str, /, **parameters: Any) -> Any:
        """Run a statement whose header ends in `$`."""
        sql, names = self._statements[name]
        return await connection.fetchval(sql, *[parameters[each] for each in names])

    async def execute(self, connection: Connection, name: str, /, **parameters: Any) -> None:
        """Run a statement whose header ends in `!`."""
        sql, names = self._statements[name]
        await connection.execute(sql, *[parameters[each] for each in names])
