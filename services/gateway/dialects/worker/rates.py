"""How many requests each client address may make: windows of the clock, counted in this process, in bounded memory."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MOST_ADDRESSES = 10_000
"""Those seen least recently are forgotten beyond that, with what they have used."""
_SUBSCRIBER_BITS = 64
"""Of an IPv6 address: whoever has one has all that share these."""


@dataclass(frozen=True)
class Standing:
    """How an address stands in the window that leaves it the least."""

    limit: int
    remaining: int
    reset: int
    """When the window ends, in seconds since the epoch."""
    is_allowed: bool


class RateLimits:
    """``limits``: most requests by the seconds of a window; each window begins at a multiple of its seconds (UTC)."""

    def __init__(self, limits: Mapping[int, int], *, now: Callable[[], float] = time.time) -> None:
        self._limits = dict(limits)
        self._now = now
        self._used: OrderedDict[str, dict[int, tuple[int, int]]] = OrderedDict()
        """Address → seconds of a window → its number and how many requests came in it."""

    def take(self, address: str) -> Standing:
        """Count one request, unless a window has no room for it; what is refused is not counted."""
        key, now = counted_as(address), self._now()
        counts = self._counts(key, now)
        is_allowed = all(counts[seconds] < most for seconds, most in self._limits.items())
        if is_allowed:
            counts = {seconds: count + 1 for seconds, count in counts.items()}
            self._keep(key, {seconds: (int(now // seconds), count) for seconds, count in counts.items()})
        return self._standing(counts, now, is_allowed=is_allowed)

    def look(self, address: str) -> Standing:
        """The same, without counting anything."""
        now = self._now()
        counts = self._counts(counted_as(address), now)
        is_allowed = all(counts[seconds] < most for seconds, most in self._limits.items())
        return self._standing(counts, now, is_allowed=is_allowed)

    def _counts(self, key: str, now: float) -> dict[int, int]:
        used = self._used.get(key, {})
        found = {seconds: used.get(seconds, (0, 0)) for seconds in self._limits}
        return {seconds: count if number == int(now // seconds) else 0 for seconds, (number, count) in found.items()}

    def _keep(self, key: str, used: dict[int, tuple[int, int]]) -> None:
        self._used[key] = used
        self._used.move_to_end(key)
        if len(self._used) > MOST_ADDRESSES:
            self._used.popitem(last=False)

    def _standing(self, counts: Mapping[int, int], now: float, *, is_allowed: bool) -> Standing:
        """Of two windows that leave as little, the longer one: until its end nothing comes free."""
        left = {seconds: max(0, most - counts[seconds]) for seconds, most in self._limits.items()}
        seconds = min(left, key=lambda each: (left[each], -each))
        reset = (int(now // seconds) + 1) * seconds
        return Standing(self._limits[seconds], left[seconds], reset, is_allowed)


def counted_as(address: str) -> str:
    """What ``address`` is counted by: itself, or the network of an IPv6 subscriber."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found) >> _SUBSCRIBER_BITS << _SUBSCRIBER_BITS, _SUBSCRIBER_BITS)))
