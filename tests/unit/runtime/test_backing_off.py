"""Waits double from the first to the longest, and are up to half shorter by chance."""

import pytest

from services.runtime.backing_off import back_off


@pytest.mark.parametrize(("tries", "most"), [(1, 4.0), (2, 8.0), (5, 64.0), (6, 100.0), (60, 100.0)])
def test_a_wait_is_within_its_bounds(tries: int, most: float) -> None:
    waits = {back_off(tries, first_seconds=4, longest_seconds=100).total_seconds() for _ in range(200)}
    assert most / 2 <= min(waits) < max(waits) <= most
