"""What a person is told of the newest kinds of events, a line each."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.cli.lines import line
from quarterdeck.sse import Event

LINES: list[tuple[str, dict[str, Any], str]] = [
    (
        "run.waiting",
        {"summary": "Which\none?"},
        "Which one? (waits for you: `quarterdeck say`, or `quarterdeck complete`)",
    ),
    ("run.message", {"number": 1, "text": "The second."}, "you said: The second."),
    ("tests.started", {"command": "make test"}, "tests: make test"),
    ("tests.ended", {"passed": True}, "tests ended with exit code 0"),
    ("tests.ended", {"exitCode": 2}, "tests ended with exit code 2"),
]


@pytest.mark.parametrize(("kind", "payload", "words"), LINES)
def test_a_line_says_it(kind: str, payload: dict[str, Any], words: str) -> None:
    event = Event(id="1", kind=kind, job_id="j", run_id="r", number=1, attempt=1, time=None, payload=payload)
    told = line(event, "one")
    assert told is not None
    assert told.split(" one: ", 1)[1] == words
