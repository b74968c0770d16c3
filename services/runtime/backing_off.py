"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random
from datetime import timedelta


def back_off(tries: int, *, first_seconds: float, longest_seconds: float) -> timedelta:
    """At most ``first_seconds`` after the first of the ``tries`` that failed, twice that after each further one, but
    never over ``longest_seconds``; up to half of it less by chance, so that what failed together is not tried together.
    """
    most = min(longest_seconds, first_seconds * 2 ** (tries - 1))
    return timedelta(seconds=random.uniform(most / 2, most))  # noqa: S311  jitter, not a secret
