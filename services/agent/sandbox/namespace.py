"""The process-id namespace that bubblewrap makes for a command: how its command, and all in it, are ended."""

import asyncio
import json
import os
import signal
from contextlib import suppress
from pathlib import Path

from services.agent.sandbox.cgroups import Cgroup
from services.agent.sandbox.errors import SandboxUnavailableError
from services.agent.sandbox.streams import Child, Output

_START_SECONDS = 20.0


class Namespace:
    """``status``: what bubblewrap tells of itself: a line of JSON when it has begun, and one when its command ended."""

    def __init__(self, child: Child, status: Output, cgroup: Cgroup) -> None:
        self._child = child
        self._status = status
        self.cgroup = cgroup
        self._pid = -1
        self._pidfd = -1

    async def wait_for_first(self) -> int:
        """The namespace's first process, as it is called out here; it waits to be let go, and all others descend from
        it. Raises ``SandboxUnavailableError``.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                pid = int(json.loads(await self._status.stream.readline())["child-pid"])
                self._pidfd = os.pidfd_open(pid)
        except TimeoutError as error:
            raise SandboxUnavailableError(f"bubblewrap did not start within {_START_SECONDS:.0f} s") from error
        except (ValueError, KeyError, ProcessLookupError) as error:
            raise SandboxUnavailableError("bubblewrap did not start") from error
        self._pid = pid
        return pid

    def terminate(self) -> None:
        """The command is in the process group of the namespace's first process, which itself takes no SIGTERM."""
        if not self._is_alive():
            return
        if self._has_begun():
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGTERM)
        else:
            # There is nobody yet to hear it, and what comes later would never have heard.
            self.kill()

    def _has_begun(self) -> bool:
        """Whether the first process has set the namespace up and started the command."""
        try:
            return bool(Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text())
        except OSError:
            return True  # a kernel that does not tell

    def _is_alive(self) -> bool:
        """Whether the process id is still that of the first process."""
        try:
            return self._send(0)
        except ProcessLookupError:
            return False

    def _send(self, number: int) -> bool:
        if self._pidfd < 0:
            return False
        signal.pidfd_send_signal(self._pidfd, number)
        return True

    def kill(self) -> None:
        """The kernel ends all others with the first process."""
        with suppress(ProcessLookupError):
            self._child.process.kill()
        with suppress(ProcessLookupError):
            self._send(signal.SIGKILL)

    async def gone(self) -> bool:
        is_known = self._pidfd >= 0
        try:
            if is_known:
                # The first process ends only once all the others have.
                await _readable(self._pidfd)
            await self.cgroup.remove()
            return is_known
        finally:
            self._status.close()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    async def exit_code(self, returncode: int) -> int:
        if returncode < 0:
            return 128 - returncode
        if b"exit-code" not in await self._status.stream.read():
            raise SandboxUnavailableError("bubblewrap could not set it up")
        return returncode


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
