"""Whose address a request came from: the peer's, or what proxies that are trusted say of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from services.gateway.dialects.worker.service_settings import Network

UNKNOWN = "unknown"


def address_of(peer: str | None, forwarded: Sequence[str], proxies: Sequence[Network]) -> str:
    """The address nearest to here that is no trusted proxy's.

    ``peer``: who holds the connection; None: not known. ``forwarded``: the values of `X-Forwarded-For`, in order, to
    which each proxy has added whom it was asked by: what stands before an address that is not trusted may be made up.
    """
    address = peer or UNKNOWN
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while hops and _is_trusted(address, proxies):
        hop = hops.pop()
        if _parsed(hop) is None:
            break
        address = hop
    return address


def _is_trusted(address: str, proxies: Sequence[Network]) -> bool:
    found = _parsed(address)
    return found is not None and any(found in network for network in proxies)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
