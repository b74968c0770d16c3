"""One stack per data folder: an flock held by the supervisor, which names itself in the file."""

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from quarterdeck.stack.errors import StackError, StackLockedError
from quarterdeck.stack.files import private_folder
from quarterdeck.stack.orphans import START_TOLERANCE_SECONDS

WAIT_SECONDS = 0.5
"""Somebody who only looks whether the lock is held takes it for an instant; we outwait them."""


@dataclass(frozen=True)
class Holder:
    """The supervisor that holds a lock. ``created``: seconds since the epoch."""

    pid: int
    created: float
    address: str | None = None

    def process(self) -> psutil.Process | None:
        """The supervisor's process, if it is still that one."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) <= START_TOLERANCE_SECONDS:
                return process
        return None


class DataFolderLock:
    """Held from ``acquire`` to ``release``, or to the end of this process. Children do not inherit it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> None:
        """Raises StackLockedError, naming the stack that has it, or StackError where the folder cannot be used."""
        try:
            private_folder(self._path.parent)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StackError(
                f"the data folder {self._path.parent} cannot be used ({error.strerror}); choose another --data-dir"
            ) from error
        if not _lock_within(descriptor, WAIT_SECONDS):
            os.close(descriptor)
            raise locked_error(self._path)
        self._descriptor = descriptor
        self.announce(None)

    def announce(self, address: str | None) -> None:
        """Say in the file who holds it, and where the gateway is."""
        assert self._descriptor is not None, "acquire() comes first"
        me = Holder(os.getpid(), psutil.Process().create_time(), address)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(me)).encode(), 0)

    def release(self) -> None:
        """Give it up; the file stays, since removing it would let two stacks lock two files of that name."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def is_held(path: Path) -> bool:
    """Whether a stack runs on the data folder that this is the lock of."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _lock_within(descriptor, 0)
    finally:
        os.close(descriptor)


def read_holder(path: Path) -> Holder | None:
    """Who says that it holds the lock; None where nobody does, or is just about to."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _lock_within(descriptor: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def locked_error(path: Path) -> StackLockedError:
    """The error for a lock that another stack holds: who, where, what to do."""
    holder = read_holder(path)
    who = f" (pid {holder.pid}, {holder.address or 'still starting'})" if holder else ""
    return StackLockedError(
        f"a stack already runs on {path.parent}{who}; stop it with `quarterdeck down`, or choose another --data-dir"
    )
