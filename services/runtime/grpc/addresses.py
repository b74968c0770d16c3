"""Where gRPC servers listen: `host:port`, or `unix:/path` of a socket whose folder its user alone may enter."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

from services.runtime.settings import checked_address, split_address

UNIX: Final = "unix:"
# The kernel's `sun_path`, with the zero that ends it.
MOST_SOCKET_PATH_BYTES: Final = 107
_PROBE_SECONDS: Final = 2.0


class CannotListenError(Exception):
    """The address cannot be listened on; the words say which, why, and what to do."""


def _checked(address: str) -> str:
    """``address`` as gRPC wants it; raises ``ValueError``."""
    path = socket_path(address)
    if path is None:
        return checked_address(address)
    if not path.is_absolute():
        raise ValueError("must be unix:/absolute/path, as in unix:/run/quarterdeck/vcs.sock, or host:port")
    if len(os.fsencode(path)) > MOST_SOCKET_PATH_BYTES:
        raise ValueError(f"a socket's path has at most {MOST_SOCKET_PATH_BYTES} bytes; choose a shorter one")
    return f"{UNIX}{path}"


GrpcAddress = Annotated[str, AfterValidator(_checked)]
"""`host:port` or `unix:/absolute/path`."""


def socket_path(address: str) -> Path | None:
    """The socket's file; None for an address of TCP."""
    if not address.startswith(UNIX):
        return None
    path = address.removeprefix(UNIX)
    return Path("/" + path.lstrip("/")) if path.startswith("/") else Path(path)


def stays_on_this_machine(address: str) -> bool:
    """Whether nobody on a network can reach a server that listens at ``address``."""
    if socket_path(address) is not None:
        return True
    host = split_address(address)[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Bind a server to ``path`` in here: its folder is ours alone, and nobody listens there.

    gRPC removes whatever socket it finds, also that of a living server: it is asked first, and of two that start at
    once the second is refused. Raises ``CannotListenError``.
    """
    try:
        _own_folder(path.parent)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotListenError(f"the folder {path.parent} cannot be used: {error.strerror}") from error
    try:
        _lock(descriptor, path)
        _clear(path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CannotListenError(f"another process is about to listen on {path}; choose another path") from error


def _own_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        # Not narrowed: it may be a folder that others need, such as /tmp.
        raise CannotListenError(
            f"the folder {folder} is not ours alone (mode {stat.S_IMODE(found.st_mode):o}); "
            "name one that is not there yet, or give it to this user with mode 700"
        )


def _clear(path: Path) -> None:
    """Remove what a dead process left at ``path``."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListenError(f"{path} is there already and no socket; move it away or choose another path")
        if _answers(path):
            raise CannotListenError(f"another process listens on {path}; stop it or choose another path")
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotListenError(f"{path} cannot be replaced: {error.strerror or error}") from error


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):
            pass  # its queue is full: somebody is there who does not answer
        return True
