"""Which network addresses a host that a client names may have: none of this machine's own or its network's."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeAlias

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses of IPv4 in the clothes of IPv6. The first counts as global, and a gateway leads it to whatever it holds.
_TRANSLATED: Final = tuple(
    ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96")
)


class AddressError(Exception):
    """The host has no address that may be connected to; the message says which host, why, and what to do."""


class UnresolvedError(AddressError):
    """The host's addresses could not be found out; they may be at another time."""


def is_public(address: IpAddress) -> bool:
    """Whether ``address`` belongs to the internet at large."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast


async def checked_addresses(
    host: str, port: int, *, is_allowed: Callable[[IpAddress], bool] = is_public, timeout: timedelta
) -> tuple[str, ...]:
    """The addresses of ``host`` that may be connected to, in the order in which the resolver prefers them.

    To be resolved once and then connected to: asked again, the resolver may say another thing. Numbers in any
    spelling (`127.1`, `0x7f000001`, `2130706433`, `0`) are addresses here as they are for `connect`.
    Raises ``AddressError``.
    """
    found = await _resolved(host, port, timeout)
    allowed = tuple(text for text in found if is_allowed(ipaddress.ip_address(text)))
    if not allowed:
        raise AddressError(f"{host} is an address of a private network, which this installation does not allow")
    return allowed


async def _resolved(host: str, port: int, timeout: timedelta) -> tuple[str, ...]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise UnresolvedError(f"the name {host} could not be resolved in time: try again later") from None
    except (OSError, UnicodeError):
        raise UnresolvedError(f"the name {host} cannot be resolved: check the URL") from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
