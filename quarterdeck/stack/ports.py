"""Finding ports that nobody listens on."""

import socket
from collections.abc import Awaitable, Callable
from contextlib import closing

from quarterdeck.stack.errors import ProcessFailedError

TRIES = 3
TAKEN = ("address already in use", "failed to bind", "errno 98")
"""What servers say, in any case, about a port that another program has."""


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """That many different ports, free at this moment; another process may still be quicker to take one."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def on_free_ports(count: int, start: Callable[..., Awaitable[str]]) -> str:
    """Call ``start`` with that many free ports, and again with others where a port turned out to be taken."""
    for _ in range(TRIES - 1):
        try:
            return await start(*free_ports(count))
        except ProcessFailedError as error:
            if not any(words in error.log_tail.lower() for words in TAKEN):
                raise
    return await start(*free_ports(count))
