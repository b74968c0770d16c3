"""Sandboxes, worktrees and traces of processes for the tests of the sandbox."""

import asyncio
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from services.agent.sandbox import Sandbox

DEADLINE_SECONDS = 30.0


async def confined(*paths: Path) -> Sandbox:
    sandbox = await Sandbox.find("auto", paths=paths)
    if sandbox.kind != "bubblewrap":
        pytest.skip(sandbox.words)
    return sandbox


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that every user can reach, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="qd-sandbox-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


async def comes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does before the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


class Trace:
    """A command to start anywhere, and whether it runs."""

    def __init__(self) -> None:
        self.seconds = f"{300 + uuid.uuid4().int % 10**6}.{uuid.uuid4().int % 10**9}"
        self.command = f"sleep {self.seconds}"

    def is_running(self) -> bool:
        return any(self.seconds in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))

    async def runs(self, *, wanted: bool = True) -> bool:
        """Whether it comes to that before the deadline."""
        return await comes_true(lambda: self.is_running() is wanted)


def is_root() -> bool:
    return os.geteuid() == 0
