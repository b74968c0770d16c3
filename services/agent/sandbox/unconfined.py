"""Starts commands without a sandbox, where the operator chose that: limited, and in a session of their own."""

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

from services.agent.sandbox.command import SYSTEM_PATH, Command, variables
from services.agent.sandbox.limits import GO, gated
from services.agent.sandbox.process import Process
from services.agent.sandbox.streams import Child, spawn


class Session:
    """A process group; what left it for a session of its own is not found again."""

    def __init__(self, child: Child, home: Path) -> None:
        self._child = child
        self._home = home

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.process.pid, number)

    async def gone(self) -> bool:
        shutil.rmtree(self._home, ignore_errors=True)
        return False

    async def exit_code(self, returncode: int) -> int:
        return returncode if returncode >= 0 else 128 - returncode


class Unconfined:
    async def start(self, command: Command) -> Process:
        """Raises ``OSError``."""
        home = Path(tempfile.mkdtemp(prefix="quarterdeck-home-"))
        path = os.environ.get("PATH", SYSTEM_PATH)
        try:
            child = await spawn(
                gated(command.argv, command.limits, streams=command.streams, count_processes=False),
                streams=command.streams,
                environment=variables(command, home=str(home), path=path),
                cwd=command.worktree or home,
            )
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        process = Process(child, Session(child, home))
        process.stdin.write(GO)
        return process
