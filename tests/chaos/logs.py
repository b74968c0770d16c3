"""Counts what the services themselves logged as errors: no invariant, but where to look first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orjson

_LONGEST_CHARACTERS = 90
_BAD = ("error", "critical")


def logged_errors(logs: Path) -> Counter[tuple[str, str]]:
    """How often each service said what, by the log's name and the first line of the message."""
    counted: Counter[tuple[str, str]] = Counter()
    for log in sorted(logs.glob("*.log*")):
        name = log.name.partition(".")[0]
        for line in log.read_bytes().splitlines():
            if message := _error(line):
                counted[name, message] += 1
    return counted


def _error(line: bytes) -> str:
    """The message of an error; empty for any other line, the servers' own and those cut off by a kill included."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(entry, dict) or entry.get("level") not in _BAD:
        return ""
    return (str(entry.get("event", "")).splitlines() or ["no message"])[0][:_LONGEST_CHARACTERS]
