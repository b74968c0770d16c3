"""Limits of rates, whose address counts, and which origins: the pure parts around the Worker API."""

import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies

from services.gateway.dialects.worker.measures import Measures
from services.gateway.dialects.worker.origins import EXPOSED, Origins
from services.gateway.dialects.worker.peers import UNKNOWN, address_of
from services.gateway.dialects.worker.rates import MOST_ADDRESSES, RateLimits, Standing, counted_as

LIMITS = {60: 3, 3_600: 5, 86_400: 6}
NOON = datetime(2026, 1, 6, 12, tzinfo=UTC).timestamp()
PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
PAGE = "http://localhost:3000"


class Clock:
    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> RateLimits:
    return RateLimits(LIMITS, now=clock)


def test_the_window_that_leaves_the_least_is_told(rates: RateLimits, clock: Clock) -> None:
    assert [rates.take("a").remaining for _ in range(3)] == [2, 1, 0]
    assert rates.take("a") == Standing(limit=3, remaining=0, reset=int(NOON) + 60, is_allowed=False)
    clock.time += 60
    assert rates.take("a") == Standing(limit=5, remaining=1, reset=int(NOON) + 3_600, is_allowed=True)


def test_each_window_is_enforced_and_begins_anew(rates: RateLimits, clock: Clock) -> None:
    allowed = []
    for _ in range(3):
        allowed.append([rates.take("a").is_allowed for _ in range(4)])
        clock.time += 60
    assert allowed == [[True, True, True, False], [True, True, False, False], [False] * 4]
    clock.time = NOON + 3_600
    assert [rates.take("a").is_allowed for _ in range(2)] == [True, False]
    assert rates.look("a").reset == datetime(2026, 1, 7, tzinfo=UTC).timestamp()
    clock.time = NOON + 12 * 3_600
    assert rates.take("a").remaining == 2


def test_addresses_do_not_share_and_looking_counts_nothing(rates: RateLimits) -> None:
    for _ in range(3):
        rates.take("a")
    assert rates.take("b").remaining == 2
    assert [rates.look("b").remaining for _ in range(3)] == [2, 2, 2]
    assert not rates.look("a").is_allowed


def test_memory_is_bounded_and_the_one_seen_last_is_kept(rates: RateLimits) -> None:
    rates.take("first")
    for number in range(MOST_ADDRESSES):
        rates.take(f"a{number}")
    assert rates.look("first").remaining == 3
    assert rates.look("a0").remaining == 2


@given(strategies.lists(strategies.integers(0, 200), max_size=60))
def test_no_window_ever_lets_more_through(steps: list[int]) -> None:
    clock, taken = Clock(), list[float]()
    rates = RateLimits(LIMITS, now=clock)
    for step in steps:
        clock.time += step
        if rates.take("a").is_allowed:
            taken.append(clock.time)
    for seconds, most in LIMITS.items():
        windows = [int(time // seconds) for time in taken]
        assert all(windows.count(window) <= most for window in windows)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_what_an_address_is_counted_by(address: str, key: str) -> None:
    assert counted_as(address) == key


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, ["203.0.113.9"], UNKNOWN),
    ],
)
def test_only_proxies_that_are_trusted_are_believed(peer: str | None, forwarded: list[str], address: str) -> None:
    assert address_of(peer, forwarded, PROXIES) == address


def test_an_origin_that_is_allowed_is_named_and_no_other() -> None:
    origins = Origins({PAGE})
    assert origins.headers(PAGE) == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": PAGE,
        "Access-Control-Expose-Headers": EXPOSED,
    }
    for other in (None, "null", "http://localhost:3001", "https://localhost:3000", PAGE + "/", PAGE.upper()):
        assert origins.headers(other) == {"Vary": "Origin"}
        assert origins.preflight(other) == {}
    assert {"Content-Type", "Authorization", "X-Requested-With"} <= set(
        origins.preflight(PAGE)["Access-Control-Allow-Headers"].split(", ")
    )


def test_measures_add_up() -> None:
    measures = Measures()
    assert (measures.success_rate, measures.error_rate, measures.average_milliseconds) == (1, 0, 0)
    for route, status in [("/a", 200)] * 18 + [("/b", 404), ("/b", 500)]:
        measures.count(route, status, milliseconds=10 if route == "/a" else 60)
    assert (measures.total, measures.by_route, measures.by_status) == (
        20,
        {"/a": 18, "/b": 2},
        {"200": 18, "404": 1, "500": 1},
    )
    assert (measures.success_rate, measures.error_rate, measures.average_milliseconds) == (0.95, 0.05, 15)
